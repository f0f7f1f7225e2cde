"""Charts: stacked bars, rates with intervals, heat maps and lines, each as a `Plot`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import blended_transform_factory

from bfpo.reports.attacked import AttackSeries
from bfpo.reports.drawing import COLORS, INK, NEUTRAL, PAPER, SOFT, Plot, rate_ticks, short, wrapped
from bfpo.reports.formats import format_number
from bfpo.reports.report import ReportModel
from bfpo.safehelp.answer_kinds import ANSWER_KINDS
from bfpo.statistics.intervals import Estimate

# Labels of the safety cells.
CELLS = {"SS": "both safe", "SU": "only chosen safe", "US": "only rejected safe", "UU": "neither safe"}
# What a color and a marker stand for.
Series = ReportModel | AttackSeries


@dataclass(frozen=True)
class ChartRow:
    """A row of a chart.

    Attributes:
        name: name of the row.
        values: figures by the place of their model or other series.
        marked: numbers of the models whose difference from the baseline is established.
        chance: score of guessing, if meaningful.
        is_heading: whether it is the heading of the rows below it.
    """

    name: str
    values: Mapping[int, Estimate]
    marked: frozenset[int] = frozenset()
    chance: float | None = None
    is_heading: bool = False


def kinds_plot(name: str, groups: Sequence[tuple[str, Sequence[tuple[ReportModel, Mapping[str, int]]]]]) -> Plot:
    """Stacked bars of the kinds of each model's answers; ``groups`` is from `kinds_by_set`."""
    rows = sum(len(bars) + 1.15 for _, bars in groups)

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        y, ticks, labels = 0.0, [], []
        for title, bars in groups:
            # Start at the figure's left edge to fit long titles without shrinking the axes.
            left = blended_transform_factory(figure.transFigure, axes.transData)
            text = axes.text(0.005, y, short(title, 40 if narrow else 96), transform=left, va="center", color=INK)
            text.set(fontsize=8, fontweight="bold", in_layout=False)
            y += 0.85
            for model, counts in bars:
                _stack(axes, y, counts, narrow)
                ticks.append(y)
                labels.append(short(model.name, 14 if narrow else 22))
                y += 1
            y += 0.3
        axes.set_yticks(ticks, labels, color=INK)
        axes.set(xlim=(0, 1), ylim=(y - 0.6, -0.7))
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.spines[["left", "bottom"]].set_visible(False)
        used = {kind for _, bars in groups for _, counts in bars for kind, count in counts.items() if count}
        shown = {kind: info.fill for kind, info in ANSWER_KINDS.items() if kind in used}
        handles = [Rectangle((0, 0), 1, 1, facecolor=fill) for fill in shown.values()]
        figure.legend(
            handles, list(shown), loc="outside upper left", ncols=3 if narrow else 6, frameon=False, fontsize=8,
            handlelength=0.9, handleheight=0.9, columnspacing=1.2, handletextpad=0.5, labelcolor=INK,
        )  # fmt: skip

    words = "; ".join(
        f"{title}: " + ", ".join(f"{model.name} {_shares(counts)}" for model, counts in bars) for title, bars in groups
    )
    return Plot(name, f"Stacked bars of answer kinds. {words}.", draw, 0.6 + 0.27 * rows, 0.85 + 0.27 * rows)


def _stack(axes: Axes, y: float, counts: Mapping[str, int], narrow: bool) -> None:
    total = sum(counts.values()) or 1
    left = 0.0
    for kind, info in ANSWER_KINDS.items():
        share = counts.get(kind, 0) / total
        if share:
            axes.barh(y, share, left=left, height=0.74, color=info.fill, edgecolor=PAPER, linewidth=0.6)
        if share >= (0.1 if narrow else 0.05):
            text = f"{100 * share:.0f}"
            axes.text(left + share / 2, y, text, ha="center", va="center_baseline", color=info.text, fontsize=7.5)
        left += share


def _shares(counts: Mapping[str, int]) -> str:
    total = sum(counts.values()) or 1
    return " ".join(f"{kind} {100 * counts[kind] / total:.0f} %" for kind in ANSWER_KINDS if counts.get(kind))


def rates_plot(
    name: str, models: Sequence[Series], rows: Sequence[ChartRow], x_label: str, *, bars: bool, too_few: int = 0
) -> Plot:
    """Figures with intervals, one row below the other, or as bars from 0; gray with fewer than ``too_few`` items."""
    step = _step(models)

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        _draw_rates(axes, models, rows, bars, narrow, too_few)
        axes.set_xlim(*_limits([rows], bars))
        axes.set_xlabel(wrapped(x_label, narrow))
        legend(figure, models, narrow)

    height = 0.75 + step * 1.02 * len(rows)
    return Plot(name, f"{x_label}. {_words(_names(models), rows)}.", draw, height, height + 0.25)


def paired_rates_plot(
    name: str, models: Sequence[Series], labeled: Sequence[tuple[str, Sequence[ChartRow]]], title: str
) -> Plot:
    """Two figures of the same rows as bars on one scale, side by side, or one below the other on a phone.

    ``labeled`` has the label and rows of each figure; ``title`` says what both show.
    """
    rows = labeled[0][1]
    step = _step(models)

    def draw(figure: Figure, narrow: bool) -> None:
        grid = figure.subplots(*((len(labeled), 1) if narrow else (1, len(labeled))), squeeze=False)
        for place, (axes, (label, own)) in enumerate(zip(grid.flat, labeled, strict=True)):
            _draw_rates(axes, models, own, True, narrow, 0)
            axes.set_xlim(*_limits([one for _, one in labeled], True))
            axes.set_xlabel(label)
            if place and not narrow:
                axes.set_yticklabels([])
        legend(figure, models, narrow)

    height = 0.75 + step * 1.02 * len(rows)
    words = "; ".join(f"{label}: {_words(_names(models), own)}" for label, own in labeled)
    return Plot(name, f"{title}. {words}.", draw, height, height * len(labeled))


def _step(models: Sequence[Series]) -> float:
    """Height of a row in inches."""
    return 0.17 * len(models) + 0.2


def _draw_rates(
    axes: Axes, models: Sequence[Series], rows: Sequence[ChartRow], bars: bool, narrow: bool, too_few: int
) -> None:
    step = _step(models)
    offsets = [(place - (len(models) - 1) / 2) * 0.17 / step for place in range(len(models))]
    for number, row in enumerate(rows):
        if row.chance is not None:
            axes.plot([row.chance] * 2, [number - 0.42, number + 0.42], color=SOFT, lw=1.1, ls=(0, (2, 1.5)))
        for place, model in enumerate(models):
            if place in row.values:
                few = row.values[place].n < too_few
                _whisker(axes, number + offsets[place], row.values[place], model, few, 0.13 / step if bars else 0)
                if place in row.marked:
                    at = (row.values[place].high, number + offsets[place])
                    axes.annotate("*", at, (4, -3), textcoords="offset points", va="center", color=INK, fontsize=9)
    axes.set_yticks(range(len(rows)), [short(row.name, 15 if narrow else 30) for row in rows], color=INK)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.is_heading else "normal")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    rate_ticks(axes.xaxis)
    axes.grid(True, axis="x")
    axes.spines["left"].set_visible(bars)


def _limits(figures: Sequence[Sequence[ChartRow]], bars: bool) -> tuple[float, float]:
    """Ends of the axis that all of the figures' intervals fit on."""
    shown = [row for rows in figures for row in rows]
    high = max(e.high for row in shown for e in row.values.values())
    low = min([e.low for row in shown for e in row.values.values()] + [r.chance for r in shown if r.chance is not None])
    margin = 0.05 * (high - low or 1)
    return 0 if bars else low - margin, high + margin


def _names(models: Sequence[Series]) -> list[str]:
    return [model.name for model in models]


def _words(names: Sequence[str], rows: Sequence[ChartRow]) -> str:
    return "; ".join(
        f"{row.name}: " + ", ".join(f"{names[at]} {format_number(e.value)}" for at, e in row.values.items())
        for row in rows
        if row.values
    )


def _whisker(axes: Axes, y: float, estimate: Estimate, model: Series, few: bool, bar: float) -> None:
    color = NEUTRAL if few else model.color
    if bar:
        axes.barh(y, estimate.value, height=bar, color=color, alpha=0.3, linewidth=0)
    axes.plot([estimate.low, estimate.high], [y, y], color=color, lw=1.3, alpha=0.55 if few else 1, zorder=3)
    face = PAPER if few else color
    axes.plot(estimate.value, y, model.marker, color=face, ms=4.2, mec=color, mew=0.9, zorder=4, clip_on=False)


def legend(figure: Figure, models: Sequence[Series], narrow: bool) -> None:
    """Add a legend above the plot if there are several models."""
    if len(models) < 2:
        return
    handles = [figure.axes[0].plot([], [], s.marker, color=s.color, ms=5)[0] for s in models]
    names = [short(s.name) for s in models]
    longest = max(map(len, names))
    columns = max(1, min(len(models), (46 if narrow else 104) // (longest + 5)))
    figure.legend(
        handles, names, loc="outside upper left", ncols=columns, frameon=False, fontsize=8,
        handletextpad=0.3, columnspacing=1.2, labelcolor=INK,
    )  # fmt: skip


def heat_plot(name: str, columns: Sequence[str], rows: Sequence[ChartRow], what: str) -> Plot:
    """A heat map of rates by row and column; ``what`` describes the rates."""

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for number, row in enumerate(rows):
            for place, estimate in row.values.items():
                cell = Rectangle((place - 0.5, number - 0.5), 1, 1, facecolor=COLORS[1], edgecolor=PAPER, lw=1.5)
                # Differences must be visible, and numbers legible in light and dark.
                cell.set_alpha(0.06 + 0.56 * estimate.value)
                axes.add_patch(cell)
                text = format_number(estimate.value) + ("*" if place in row.marked else "")
                axes.text(place, number, text, ha="center", va="center", color=INK, fontsize=7.5 if narrow else 8.5)
        fits = (34 if narrow else 80) // len(columns)
        names = [short(column, max(fits, 16)) for column in columns]
        axes.set_xticks(range(len(columns)), names, color=INK)
        if max(map(len, names)) > fits:
            axes.set_xticks(range(len(columns)), names, color=INK, rotation=35, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), [short(row.name, 15 if narrow else 30) for row in rows], color=INK)
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        axes.xaxis.tick_top()
        axes.spines[["left", "bottom"]].set_visible(False)

    height = 0.5 + 0.3 * len(rows)
    return Plot(name, f"Heat map, {what}. {_words(columns, rows)}.", draw, height + 0.3, height + 0.5)


def gap_plot(
    name: str, models: Sequence[ReportModel], gaps: Mapping[int, Mapping[str, Sequence[tuple[int, float]]]]
) -> Plot:
    """Gap between each safety cell's margin and its label over training.

    ``gaps`` has (step, gap) by the model's number and cell, in the label's units.
    """
    trained = [model for model in models if model.number in gaps]
    cells = [cell for cell in CELLS if any(gaps[model.number].get(cell) for model in trained)]

    def draw(figure: Figure, narrow: bool) -> None:
        columns = 2 if narrow else len(cells)
        grid = figure.subplots(-(-len(cells) // columns), columns, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(cells):
                axes.set_visible(False)
                continue
            axes.axhline(0, color=SOFT, lw=1, ls=(0, (2, 1.5)))
            for model in trained:
                points = gaps[model.number].get(cells[place], ())
                style = ("-", "--", "-.", ":")[model.hue % 4]
                axes.plot([step for step, _ in points], [gap for _, gap in points], color=model.color, lw=1.5, ls=style)
            axes.set_title(CELLS[cells[place]], fontsize=8, color=INK, loc="left")
            axes.grid(True, axis="y")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
        figure.supxlabel("step", fontsize=8.5, color=SOFT)
        figure.supylabel("gap to the label", fontsize=8.5, color=SOFT)
        legend(figure, trained, narrow)

    words = "; ".join(
        f"{model.name}, {CELLS[cell]}: from {format_number(points[0][1])} to {format_number(points[-1][1])}"
        for model in trained
        for cell in cells
        if (points := gaps[model.number].get(cell))
    )
    return Plot(name, f"Gap to the label over training; 0 is the target. {words}.", draw, 2.5, 4.2)


def judge_plot(name: str, shares: Sequence[float], agreement: Mapping[float, Estimate], judges: Sequence[str]) -> Plot:
    """Histogram of the primary judge's P(safe), and the second judge's labels against it.

    ``shares`` is from `certainty`, and ``agreement`` from `agreement_by_certainty`; empty without a second judge.
    """

    def draw(figure: Figure, narrow: bool) -> None:
        both, across = bool(agreement), "P(safe) by the primary judge"
        grid = figure.subplots(2 if narrow and both else 1, 2 if both and not narrow else 1, squeeze=False)
        axes = grid.flat[0]
        axes.bar([0.05 + tenth / 10 for tenth in range(10)], shares, width=0.092, color="#0072b2", linewidth=0)
        axes.set(xlabel=across, ylabel="share of answers", xlim=(0, 1))
        for axes in grid.flat:
            rate_ticks(axes.xaxis)
            rate_ticks(axes.yaxis)
            axes.grid(True, axis="y")
        if both:
            axes = grid.flat[1]
            axes.plot([0, 1], [0, 1], color=SOFT, lw=1, ls=(0, (2, 1.5)))
            for at, share in agreement.items():
                axes.plot([at, at], [share.low, share.high], color="#0072b2", lw=1.3)
                axes.plot(at, share.value, "o", color="#0072b2", ms=4.5)
            axes.set(xlabel=across, ylabel="labeled safe by the second", xlim=(0, 1), ylim=(-0.03, 1.03))

    sure = shares[0] + shares[-1]
    words = f"{format_number(sure)} of the answers are below .1 or above .9"
    rows = ", ".join(f"at {format_number(at)}: {format_number(share.value)}" for at, share in agreement.items())
    second = f" Share labeled safe by {judges[1]}: {rows}." if rows else ""
    return Plot(name, f"Histogram of P(safe) by {judges[0]}: {words}.{second}", draw, 2.7, 4.6 if agreement else 2.4)


def length_plot(
    name: str, models: Sequence[ReportModel], curves: Mapping[int, Sequence[tuple[float, Estimate]]]
) -> Plot:
    """Mean helpfulness by length of answer; ``curves`` has each model's `help_by_length` by its number."""
    shown = [model for model in models if model.number in curves]

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for model in shown:
            points = curves[model.number]
            for length, help_ in points:
                axes.plot([length] * 2, [help_.low, help_.high], color=model.color, lw=1, alpha=0.6)
            lengths = [length for length, _ in points]
            axes.plot(lengths, [e.value for _, e in points], model.marker, ls="-", lw=1.3, ms=4.5, color=model.color)
        axes.set(xlabel="mean tokens in a quarter of the answers", ylabel="mean helpfulness")
        rate_ticks(axes.yaxis)
        axes.grid(True)
        legend(figure, shown, narrow)

    words = "; ".join(
        f"{s.name}: " + ", ".join(f"{length:.0f} tokens {format_number(e.value)}" for length, e in curves[s.number])
        for s in shown
    )
    return Plot(name, f"Mean helpfulness by length of answer. {words}.", draw, 2.9, 3.1)
