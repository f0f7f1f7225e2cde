"""The plot that says it all: helpfulness against harmlessness, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bfpo.safehelp.records import Evaluation

# Okabe and Ito's colours, which all forms of colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def pareto_figure(evaluations: Sequence[Evaluation], baseline: str | None = None) -> Figure:
    """Each model's point with its 95 % intervals, the frontier, and arrows from the baseline."""
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    axes = figure.subplots()
    points = {e.model: (e.scores["helpful"], e.scores["harmless"]) for e in evaluations}
    start = points.get(baseline) if baseline else None
    for number, (name, (helpful, harmless)) in enumerate(points.items()):
        colour = "#777777" if name in (baseline, "base") else COLOURS[number % len(COLOURS)]
        if start and name not in (baseline, "base"):
            axes.annotate(
                "",
                (helpful.value, harmless.value),
                (start[0].value, start[1].value),
                arrowprops={"arrowstyle": "-|>", "color": colour, "alpha": 0.25, "lw": 1.2, "shrinkA": 6, "shrinkB": 6},
            )
        axes.errorbar(
            helpful.value,
            harmless.value,
            xerr=[[helpful.value - helpful.low], [helpful.high - helpful.value]],
            yerr=[[harmless.value - harmless.low], [harmless.high - harmless.value]],
            fmt=MARKERS[number % len(MARKERS)],
            color=colour,
            markersize=8,
            elinewidth=1.2,
            capsize=2.5,
            zorder=3,
        )
    _frontier(axes, points)
    _labels(axes, points)
    axes.set_xlim(-0.03, 1.06)
    axes.set_ylim(-0.05, 1.1)
    axes.set_xlabel("helpful  →   mean help over benign and borderline prompts")
    axes.set_ylabel("harmless  →   harmful prompts answered safely and coherently")
    axes.grid(alpha=0.18)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _frontier(axes: Any, points: dict[str, Any]) -> None:
    """The points that no other model beats in both, joined."""
    values = [(helpful.value, harmless.value) for helpful, harmless in points.values()]
    best = sorted((x, y) for x, y in values if not any(u >= x and v >= y and (u, v) != (x, y) for u, v in values))
    if len(best) > 1:
        axes.plot(*zip(*best, strict=True), color="#999999", lw=1, ls=(0, (4, 3)), zorder=1)


def _labels(axes: Any, points: dict[str, Any]) -> None:
    """Each name beside its point, moved down where it would cover another."""
    placed: list[tuple[float, float]] = []
    for name, (helpful, harmless) in sorted(points.items(), key=lambda item: -item[1][1].value):
        right = helpful.value < 0.85
        x, y = helpful.value + (0.02 if right else -0.02), harmless.value + 0.028
        while any(abs(x - u) < 0.14 and abs(y - v) < 0.045 for u, v in placed):
            y -= 0.045
        placed.append((x, y))
        axes.annotate(name, (x, y), ha="left" if right else "right", va="center", fontsize=10, fontweight="bold")


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG of screen resolution."""
    figure.savefig(path, dpi=160)


def as_svg(figure: Figure) -> str:
    """A figure as inline SVG, its text as text, in the colour of the page's own."""
    text = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bfpo"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
