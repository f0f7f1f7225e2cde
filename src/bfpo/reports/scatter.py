"""Scatter plots: helpfulness against harmlessness, and over-refusal against attack success."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Polygon

from bfpo.reports.drawing import GRID, INK, PAPER, SOFT, Plot, place_labels, rate_ticks, short, wrapped
from bfpo.reports.formats import format_number
from bfpo.reports.report import ReportModel
from bfpo.safehelp.figures import Figure
from bfpo.statistics.intervals import Estimate


@dataclass(frozen=True)
class Point:
    """A model in a scatter plot.

    ``outline`` is the [N, 2] outline of the joint 95 % region; None draws both intervals as a cross.
    """

    model: ReportModel
    x: Estimate
    y: Estimate
    outline: np.ndarray | None = None


def frontier(points: Sequence[Point]) -> list[Point]:
    """The Pareto frontier of the models, where higher is better in both figures, from left to right."""
    best = [
        point
        for point in points
        if not any(
            other.x.value >= point.x.value
            and other.y.value >= point.y.value
            and (other.x.value, other.y.value) != (point.x.value, point.y.value)
            for other in points
        )
    ]
    return sorted(best, key=lambda point: (point.x.value, -point.y.value))


def headline_plot(name: str, points: Sequence[Point], x_figure: Figure, y_figure: Figure) -> Plot:
    """Models by two figures (higher is better) with their joint 95 % regions."""

    def draw(figure: Drawing, narrow: bool) -> None:
        axes = figure.subplots()
        _limits(axes, points)
        start = next((point for point in points if point.model.is_baseline), None)
        best = frontier(points)
        if len(best) > 1 and len(points) > 2:
            axes.plot([p.x.value for p in best], [p.y.value for p in best], color=SOFT, lw=1, ls=(0, (4, 3)), zorder=1)
        for point in points:
            if start and point is not start:
                axes.annotate(
                    "",
                    (point.x.value, point.y.value),
                    (start.x.value, start.y.value),
                    arrowprops={"arrowstyle": "-|>", "color": point.model.color, "alpha": 0.45, "lw": 1.1,
                                "shrinkA": 7, "shrinkB": 7},
                )  # fmt: skip
            _mark(axes, point)
        lines = [(_xy(a), _xy(b)) for a, b in pairwise(best)]
        lines += [(_xy(start), _xy(point)) for point in points if start and point is not start]
        _finish(axes, points, (x_figure, y_figure), lines, narrow)
        axes.set_title("better ↗", loc="right", fontsize=8.5, color=SOFT)

    return Plot(name, _words(points, x_figure, y_figure), draw, 4.6, 3.7)


def refusal_plot(name: str, points: Sequence[Point], x_figure: Figure, y_figure: Figure) -> Plot:
    """Models by two rates (lower is better) with lines of equal mean."""

    def draw(figure: Drawing, narrow: bool) -> None:
        axes = figure.subplots()
        _limits(axes, points)
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        for balance in np.arange(0.05, 1.0, 0.1 if right - left + high - low > 0.9 else 0.05):
            ends = [(x, 2 * balance - x) for x in (left, right)]
            axes.plot(*zip(*ends, strict=True), color=GRID, lw=0.8, zorder=0, scalex=False, scaley=False)
            x = 2 * balance - low
            if left < x < right - 0.08 * (right - left):
                text = format_number(1 - balance)
                axes.annotate(text, (x, low), (2, 3), textcoords="offset points", color=SOFT, fontsize=7)
        for point in points:
            _mark(axes, point)
        crosses = [
            line
            for point in points
            for line in (
                ((point.x.low, point.y.value), (point.x.high, point.y.value)),
                ((point.x.value, point.y.low), (point.x.value, point.y.high)),
            )
        ]
        _finish(axes, points, (x_figure, y_figure), crosses, narrow)
        axes.grid(False)
        axes.set_title("better ↙", loc="right", fontsize=8.5, color=SOFT)

    return Plot(name, _words(points, x_figure, y_figure), draw, 4.2, 3.6)


def _limits(axes: Axes, points: Sequence[Point]) -> None:
    """Set limits around all regions, at least 0.2 apart, so that noise doesn't look like a difference."""
    xs = [end for point in points for end in (point.x.low, point.x.high)]
    ys = [end for point in points for end in (point.y.low, point.y.high)]
    for point in points:
        if point.outline is not None:
            xs += list(point.outline[:, 0])
            ys += list(point.outline[:, 1])
    for values, put in ((xs, axes.set_xlim), (ys, axes.set_ylim)):
        middle, span = (min(values) + max(values)) / 2, max(0.2, 1.15 * (max(values) - min(values)))
        low, high = middle - span / 2, middle + span / 2
        shift = max(0.0, -0.03 - low) - max(0.0, high - 1.04)
        put(max(-0.03, low + shift), min(1.04, high + shift))


def _mark(axes: Axes, point: Point) -> None:
    color = point.model.color
    if point.outline is not None:
        ground = to_rgba(color, 0.2)
        axes.add_patch(Polygon(point.outline, closed=True, facecolor=ground, edgecolor=color, lw=0.8, zorder=2))
    else:
        x, y = point.x, point.y
        axes.plot([x.low, x.high], [y.value] * 2, color=color, lw=1.3, zorder=2)
        axes.plot([x.value] * 2, [y.low, y.high], color=color, lw=1.3, zorder=2)
    axes.plot(
        point.x.value, point.y.value, point.model.marker, color=color, ms=7.5, mec=PAPER, mew=0.9, zorder=4,
        clip_on=False,
    )  # fmt: skip


def _finish(
    axes: Axes,
    points: Sequence[Point],
    figures: tuple[Figure, Figure],
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    narrow: bool,
) -> None:
    across, up = (f"{figure.label}: {figure.description} →" for figure in figures)
    axes.set_xlabel(wrapped(across, narrow))
    axes.set_ylabel(wrapped(up, narrow=True))
    rate_ticks(axes.xaxis)
    rate_ticks(axes.yaxis)
    axes.grid(True)
    names = [short(point.model.name) for point in points]
    place_labels(axes, [_xy(point) for point in points], names, 8 if narrow else 9, lines)
    for text in axes.texts:
        text.set_color(INK if text.get_fontweight() == "bold" else SOFT)


def _xy(point: Point) -> tuple[float, float]:
    return point.x.value, point.y.value


def _words(points: Sequence[Point], x_figure: Figure, y_figure: Figure) -> str:
    rows = [f"{p.model.name} {format_number(p.x.value)}, {format_number(p.y.value)}" for p in points]
    return f"Scatter plot, across: {x_figure.label}; up: {y_figure.label}. {'; '.join(rows)}."
