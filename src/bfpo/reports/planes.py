"""Two planes: helpful against harmless, and what is refused wrongly against what is answered wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from bfpo.reports.drawing import GRID, INK, PAPER, SOFT, Plot, place_labels, rate_ticks
from bfpo.reports.formats import format_number
from bfpo.reports.subjects import Subject
from bfpo.statistics.intervals import Estimate


@dataclass(frozen=True)
class Place:
    """Where a model is on a plane.

    Attributes:
        subject: the model.
        x: its first figure.
        y: its second.
        outline: [N, 2] of the joint 95 % region; None shows the two intervals as a cross instead.
    """

    subject: Subject
    x: Estimate
    y: Estimate
    outline: np.ndarray | None = None


def frontier(places: Sequence[Place]) -> list[Place]:
    """The models that no other beats in both figures, more of which is better, from left to right."""
    best = [
        place
        for place in places
        if not any(
            other.x.value >= place.x.value
            and other.y.value >= place.y.value
            and (other.x.value, other.y.value) != (place.x.value, place.y.value)
            for other in places
        )
    ]
    return sorted(best, key=lambda place: (place.x.value, -place.y.value))


def headline_plot(name: str, places: Sequence[Place], x_label: str, y_label: str) -> Plot:
    """Models on a plane of two figures, more of which is better, with their joint 95 % regions.

    Args:
        name: of the plot's files.
        places: the models.
        x_label: what lies on the axis.
        y_label: what lies on the axis.
    """

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        _limits(axes, places)
        start = next((place for place in places if place.subject.is_baseline), None)
        best = frontier(places)
        if len(best) > 1 and len(places) > 2:
            axes.plot([p.x.value for p in best], [p.y.value for p in best], color=SOFT, lw=1, ls=(0, (4, 3)), zorder=1)
        for place in places:
            if start and place is not start:
                axes.annotate(
                    "",
                    (place.x.value, place.y.value),
                    (start.x.value, start.y.value),
                    arrowprops={"arrowstyle": "-|>", "color": place.subject.colour, "alpha": 0.45, "lw": 1.1,
                                "shrinkA": 7, "shrinkB": 7},
                )  # fmt: skip
            _mark(axes, place)
        lines = [(_point(a), _point(b)) for a, b in pairwise(best)]
        lines += [(_point(start), _point(place)) for place in places if start and place is not start]
        _finish(axes, places, (x_label, y_label), lines, narrow)
        axes.set_title("better ↗", loc="right", fontsize=8.5, color=SOFT)

    return Plot(name, _words(places, x_label, y_label), draw, 4.6, 3.7)


def refusal_plot(name: str, places: Sequence[Place], x_label: str, y_label: str) -> Plot:
    """Models on a plane of two rates of which less is better, with lines of equal mean."""

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        _limits(axes, places)
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        for balance in np.arange(0.05, 1.0, 0.1 if right - left + high - low > 0.9 else 0.05):
            ends = [(x, 2 * balance - x) for x in (left, right)]
            axes.plot(*zip(*ends, strict=True), color=GRID, lw=0.8, zorder=0, scalex=False, scaley=False)
            x = 2 * balance - low
            if left < x < right - 0.08 * (right - left):
                text = format_number(1 - balance)
                axes.annotate(text, (x, low), (2, 3), textcoords="offset points", color=SOFT, fontsize=7)
        for place in places:
            _mark(axes, place)
        crosses = [
            line
            for place in places
            for line in (
                ((place.x.low, place.y.value), (place.x.high, place.y.value)),
                ((place.x.value, place.y.low), (place.x.value, place.y.high)),
            )
        ]
        _finish(axes, places, (x_label, y_label), crosses, narrow)
        axes.grid(False)
        axes.set_title("better ↙", loc="right", fontsize=8.5, color=SOFT)

    return Plot(name, _words(places, x_label, y_label), draw, 4.2, 3.6)


def _limits(axes: Axes, places: Sequence[Place]) -> None:
    """As near as the regions allow, and never so near that noise looks like a difference."""
    xs = [end for place in places for end in (place.x.low, place.x.high)]
    ys = [end for place in places for end in (place.y.low, place.y.high)]
    for place in places:
        if place.outline is not None:
            xs += list(place.outline[:, 0])
            ys += list(place.outline[:, 1])
    for values, put in ((xs, axes.set_xlim), (ys, axes.set_ylim)):
        middle, span = (min(values) + max(values)) / 2, max(0.2, 1.15 * (max(values) - min(values)))
        low, high = middle - span / 2, middle + span / 2
        shift = max(0.0, -0.03 - low) - max(0.0, high - 1.04)
        put(max(-0.03, low + shift), min(1.04, high + shift))


def _mark(axes: Axes, place: Place) -> None:
    colour = place.subject.colour
    if place.outline is not None:
        ground = to_rgba(colour, 0.2)
        axes.add_patch(Polygon(place.outline, closed=True, facecolor=ground, edgecolor=colour, lw=0.8, zorder=2))
    else:
        x, y = place.x, place.y
        axes.plot([x.low, x.high], [y.value] * 2, color=colour, lw=1.3, zorder=2)
        axes.plot([x.value] * 2, [y.low, y.high], color=colour, lw=1.3, zorder=2)
    axes.plot(
        place.x.value, place.y.value, place.subject.marker, color=colour, ms=7.5, mec=PAPER, mew=0.9, zorder=4,
        clip_on=False,
    )  # fmt: skip


def _finish(
    axes: Axes,
    places: Sequence[Place],
    labels: tuple[str, str],
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    narrow: bool,
) -> None:
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    rate_ticks(axes.xaxis)
    rate_ticks(axes.yaxis)
    axes.grid(True)
    axes.tick_params(length=0)
    place_labels(
        axes, [_point(place) for place in places], [p.subject.short for p in places], 8 if narrow else 9, lines
    )
    for text in axes.texts:
        text.set_color(INK if text.get_fontweight() == "bold" else SOFT)


def _point(place: Place) -> tuple[float, float]:
    return place.x.value, place.y.value


def _words(places: Sequence[Place], x_label: str, y_label: str) -> str:
    rows = [f"{p.subject.name} {format_number(p.x.value)}, {format_number(p.y.value)}" for p in places]
    return f"Scatter plot, across: {x_label}; up: {y_label}. {'; '.join(rows)}."
