"""Drawing of plots for wide and narrow screens, as PNG and SVG files and as inline SVG in the page's colors."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bfpo.files import whole_file, write_text
from bfpo.reports.formats import format_number, printable

# Okabe and Ito's colors, which are distinct in all forms of color vision; black is for text.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
# One fewer than colors, so that 30 models differ in color or marker. The square marks the baseline.
MARKERS = ("o", "^", "D", "v", "P")
BASELINE_MARKER = "s"
NEUTRAL = "#6a737d"
# The background is slightly off white, to distinguish it from white text when colors are replaced for the page.
INK, SOFT, GRID, PAPER, GROUND = "#1f2328", "#59636e", "#d8dde3", "#fefefe", "#fffffe"
# In the page colors are variables, so that one drawing works in light and dark.
_VARIABLES = {NEUTRAL: "neutral", INK: "ink", SOFT: "soft", GRID: "grid", PAPER: "paper"} | {
    color: f"c{number}" for number, color in enumerate(COLORS)
}
_FOR_PAGE = {GROUND: "none"} | {color: f"var(--{name})" for color, name in _VARIABLES.items()}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bfpo",
    # A model may be called "$x$".
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "figure.facecolor": GROUND,
    "axes.facecolor": "none",
}
_WIDE, _NARROW = 7.4, 3.7


@dataclass(frozen=True)
class Plot:
    """A plot in two widths, for a page and for a phone.

    Attributes:
        name: name of its files.
        alt: description of its content.
        draw: function that draws on an empty figure; its second argument is whether the figure is narrow.
        wide: height of the wide plot, in inches.
        narrow: height of the narrow plot, in inches.
    """

    name: str
    alt: str
    draw: Callable[[Figure, bool], None]
    wide: float
    narrow: float

    def write(self, folder: Path) -> tuple[str, str]:
        """Write ``NAME.png`` and ``NAME.svg``, and return the wide and the narrow plot as SVG for the page."""
        with matplotlib.rc_context(_SETTINGS):
            wide, narrow = self._figure(narrow=False), self._figure(narrow=True)
            svgs = [_as_svg(figure) for figure in (wide, narrow)]
            wide.dpi = 180
            with whole_file(folder / f"{self.name}.png") as temporary:
                FigureCanvasAgg(wide).print_png(temporary)
        write_text(folder / f"{self.name}.svg", svgs[0])
        # Ids must be unique within a page.
        first, second = (
            re.sub(r"<[^>]+>", lambda tag, width=width: _for_page(tag[0], f"{self.name}-{width}-"), svg).strip()
            for svg, width in zip(svgs, ("wide", "narrow"), strict=True)
        )
        return first, second

    def _figure(self, narrow: bool) -> Figure:
        size = (_NARROW, self.narrow) if narrow else (_WIDE, self.wide)
        figure = Figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
        self.draw(figure, narrow)
        # Compute the layout only once, for all formats.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        return figure


def _as_svg(figure: Figure) -> str:
    text = StringIO()
    # Unlike savefig, which draws twice, since the layout has been computed.
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _for_page(tag: str, prefix: str) -> str:
    """Adapt a tag of matplotlib's SVG for the page; text, in which matplotlib escapes < and >, is unchanged."""
    if tag.startswith("<!--"):
        return ""
    if tag.startswith("<svg"):
        return re.sub(r'.*?(viewBox="[^"]+").*', r'<svg \1 aria-hidden="true">', tag, flags=re.DOTALL)
    tag = re.sub(r"#[0-9a-f]{6}\b", lambda found: _FOR_PAGE.get(found[0], found[0]), tag)
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", tag)
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag)


def short(name: str, length: int = 26) -> str:
    """A name that fits a plot: shortened in the middle, with unprintable characters replaced."""
    name = printable(name)
    if len(name) <= length:
        return name
    kept = length - 1
    return f"{name[: kept - kept // 2]}…{name[-(kept // 2) :]}"


def wrapped(label: str, narrow: bool) -> str:
    """An axis label wrapped to the width of the plot."""
    return fill(label, 36 if narrow else 84)


def rate_ticks(axis: Any) -> None:
    """Set ticks at round numbers, formatted as in tables: ``.25``."""
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(lambda value, _: format_number(value, 2 if np.ptp(axis.get_view_interval()) > 0.08 else 3))


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    size: float,
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
) -> None:
    """Write each text beside its point, with as little overlap as possible with other points, texts and lines.

    Points, and the start and end of each line, are in data coordinates of axes with their final limits; the font's size
    is in points.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    places = [tuple(axes.transData.transform(point)) for point in points]
    box = axes.bbox
    taken = [_square(x, y, 5 * scale) for x, y in places]
    for start, end in lines:
        (x, y), (u, v) = axes.transData.transform([start, end])
        steps = max(2, int(np.hypot(u - x, v - y) / (6 * scale)))
        taken += [_square(x + (u - x) * t, y + (v - y) * t, 2.5 * scale) for t in np.linspace(0, 1, steps)]
    for (x, y), point, text in zip(places, points, texts, strict=True):
        width, height = len(text) * size * 0.66 * scale, size * 1.2 * scale
        options = []
        for distance in (8, 16, 26):
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
                left = x + dx * distance * scale - (width / 2 if dx == 0 else width if dx < 0 else 0)
                low = y + dy * distance * scale - height / 2
                rectangle = (left, low, left + width, low + height)
                outside = max(0.0, box.x0 - left) + max(0.0, left + width - box.x1)
                outside += max(0.0, box.y0 - low) + max(0.0, low + height - box.y1)
                cost = outside * 50 + distance + sum(_overlap(rectangle, other) for other in taken)
                options.append((cost, rectangle, dx, (dx * distance, dy * distance)))
        _, best, side, offset = min(options, key=lambda option: option[0])
        taken.append(best)
        axes.annotate(
            text, point, offset, textcoords="offset points", ha=("center", "left", "right")[side], va="center",
            fontsize=size, fontweight="bold", zorder=6,
        )  # fmt: skip


def _square(x: float, y: float, half: float) -> tuple[float, float, float, float]:
    return x - half, y - half, x + half, y + half


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0
