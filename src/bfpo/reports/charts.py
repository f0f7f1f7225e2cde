"""Charts of rows: answer kinds, categories, attacks, tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bfpo.reports.drawing import COLOURS, INK, NEUTRAL, PAPER, SOFT, Plot, rate_ticks, short
from bfpo.reports.formats import format_number
from bfpo.reports.subjects import Subject
from bfpo.safehelp.answer_kinds import ANSWER_KINDS
from bfpo.statistics.intervals import Estimate


@dataclass(frozen=True)
class Row:
    """A row of a chart: a name, and a figure of each model that has one.

    Attributes:
        name: of the row.
        values: by the model's place on the page.
        marked: places of models whose difference from the baseline is established.
        chance: what guessing scores, if that means something.
    """

    name: str
    values: Mapping[int, Estimate]
    marked: frozenset[int] = frozenset()
    chance: float | None = None


def kinds_plot(name: str, groups: Sequence[tuple[str, Sequence[tuple[Subject, Mapping[str, int]]]]]) -> Plot:
    """Stacked bars: what each model's answers to each set are.

    Args:
        name: of the plot's files.
        groups: a set and, for each model, how many answers are of each kind.
    """
    rows = sum(len(bars) + 1.15 for _, bars in groups)

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        y, ticks, labels = 0.0, [], []
        for title, bars in groups:
            axes.text(0, y, short(title, 48 if narrow else 96), fontsize=8.5, fontweight="bold", va="center", color=INK)
            y += 0.85
            for subject, counts in bars:
                _stack(axes, y, counts, narrow)
                ticks.append(y)
                labels.append(short(subject.name, 14 if narrow else 22))
                y += 1
            y += 0.3
        axes.set_yticks(ticks, labels, color=INK)
        axes.set(xlim=(0, 1), ylim=(y - 0.6, -0.7))
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        shown = [kind for kind in ANSWER_KINDS if any(counts.get(kind) for _, bars in groups for _, counts in bars)]
        handles = [Rectangle((0, 0), 1, 1, facecolor=info.fill) for kind, info in ANSWER_KINDS.items() if kind in shown]
        figure.legend(
            handles, shown, loc="outside upper left", ncols=3 if narrow else 6, frameon=False, fontsize=8,
            handlelength=0.9, handleheight=0.9, columnspacing=1.2, handletextpad=0.5, labelcolor=INK,
        )  # fmt: skip

    words = "; ".join(
        f"{title}: " + ", ".join(f"{subject.name} {_shares(counts)}" for subject, counts in bars)
        for title, bars in groups
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
    name: str, subjects: Sequence[Subject], rows: Sequence[Row], x_label: str, *, bars: bool, too_few: int = 0
) -> Plot:
    """Each row's figures with their intervals, one under the other.

    Args:
        name: of the plot's files.
        subjects: the models.
        rows: what to show.
        x_label: what the figures are.
        bars: whether they are counted from 0, as rates of something bad.
        too_few: rows with fewer items than this are grey.
    """
    step = 0.17 * len(subjects) + 0.2  # inches a row

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        offsets = [(place - (len(subjects) - 1) / 2) * 0.17 / step for place in range(len(subjects))]
        for number, row in enumerate(rows):
            if row.chance is not None:
                axes.plot([row.chance] * 2, [number - 0.42, number + 0.42], color=SOFT, lw=1.1, ls=(0, (2, 1.5)))
            for place, subject in enumerate(subjects):
                if place in row.values:
                    few = row.values[place].n < too_few
                    _whisker(axes, number + offsets[place], row.values[place], subject, few, 0.13 / step if bars else 0)
                    if place in row.marked:
                        at = (row.values[place].high, number + offsets[place])
                        axes.annotate("*", at, (4, -3), textcoords="offset points", va="center", color=INK, fontsize=9)
        axes.set_yticks(range(len(rows)), [short(row.name, 15 if narrow else 30) for row in rows], color=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        high = max(e.high for row in rows for e in row.values.values())
        low = min(
            [e.low for row in rows for e in row.values.values()] + [r.chance for r in rows if r.chance is not None]
        )
        margin = 0.05 * (high - low or 1)
        axes.set_xlim(0 if bars else low - margin, high + margin)
        axes.set_xlabel(x_label)
        rate_ticks(axes.xaxis)
        axes.grid(True, axis="x")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(bars)
        legend(figure, subjects, narrow)

    words = "; ".join(
        f"{row.name}: " + ", ".join(f"{subjects[at].name} {format_number(e.value)}" for at, e in row.values.items())
        for row in rows
    )
    height = 0.75 + step * 1.02 * len(rows)
    return Plot(name, f"{x_label}. {words}.", draw, height, height + 0.25)


def _whisker(axes: Axes, y: float, estimate: Estimate, subject: Subject, few: bool, bar: float) -> None:
    colour = NEUTRAL if few else subject.colour
    if bar:
        axes.barh(y, estimate.value, height=bar, color=colour, alpha=0.3, linewidth=0)
    axes.plot([estimate.low, estimate.high], [y, y], color=colour, lw=1.3, alpha=0.55 if few else 1, zorder=3)
    face = PAPER if few else colour
    axes.plot(estimate.value, y, subject.marker, color=face, ms=4.2, mec=colour, mew=0.9, zorder=4, clip_on=False)


def legend(figure: Figure, subjects: Sequence[Subject], narrow: bool) -> None:
    """Which colour and marker is whose, above the plot; nothing for a model alone."""
    if len(subjects) < 2:
        return
    handles = [figure.axes[0].plot([], [], s.marker, color=s.colour, ms=5)[0] for s in subjects]
    longest = max(len(s.short) for s in subjects)
    columns = max(1, min(len(subjects), (46 if narrow else 104) // (longest + 5)))
    figure.legend(
        handles, [s.short for s in subjects], loc="outside upper left", ncols=columns, frameon=False, fontsize=8,
        handletextpad=0.3, columnspacing=1.2, labelcolor=INK,
    )  # fmt: skip


def heat_plot(name: str, subjects: Sequence[Subject], rows: Sequence[Row], what: str) -> Plot:
    """A table of rates whose cells are coloured the stronger the higher: models across, rows down.

    Args:
        name: of the plot's files.
        subjects: the models.
        rows: what to show.
        what: what the rates are, for those who can't see it.
    """

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for number, row in enumerate(rows):
            for place, estimate in row.values.items():
                cell = Rectangle((place - 0.5, number - 0.5), 1, 1, facecolor=COLOURS[1], edgecolor=PAPER, lw=1.5)
                # Strong enough to tell apart, weak enough to read the number in light and dark.
                cell.set_alpha(0.06 + 0.56 * estimate.value)
                axes.add_patch(cell)
                text = format_number(estimate.value) + ("*" if place in row.marked else "")
                axes.text(place, number, text, ha="center", va="center", color=INK, fontsize=7.5 if narrow else 8.5)
        names = [short(s.name, (34 if narrow else 80) // len(subjects)) for s in subjects]
        axes.set_xticks(range(len(subjects)), names, color=INK)
        axes.set_yticks(range(len(rows)), [short(row.name, 15 if narrow else 30) for row in rows], color=INK)
        axes.set(xlim=(-0.5, len(subjects) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)

    words = "; ".join(
        f"{row.name}: " + ", ".join(f"{subjects[at].name} {format_number(e.value)}" for at, e in row.values.items())
        for row in rows
    )
    return Plot(name, f"Heat map, {what}. {words}.", draw, 0.5 + 0.3 * len(rows), 0.5 + 0.3 * len(rows))
