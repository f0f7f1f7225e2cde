"""Curves: the gap to BFPO's target over training, how sure a judge is and how right, help against length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from bfpo.reports.charts import legend
from bfpo.reports.drawing import INK, SOFT, Plot, rate_ticks
from bfpo.reports.formats import format_number
from bfpo.reports.subjects import Subject
from bfpo.statistics.intervals import Estimate

CELLS = {"SS": "both safe", "SU": "chosen safe, rejected not", "US": "rejected safe, chosen not", "UU": "neither safe"}


def gap_plot(
    name: str, subjects: Sequence[Subject], gaps: Mapping[int, Mapping[str, Sequence[tuple[int, float]]]]
) -> Plot:
    """How far each safety cell's pairs are from the label that the loss aims at, over training.

    Args:
        name: of the plot's files.
        subjects: the models.
        gaps: by a model's place and cell, (step, gap) in the label's units.
    """
    trained = [subject for subject in subjects if subject.number in gaps]
    cells = [cell for cell in CELLS if any(gaps[subject.number].get(cell) for subject in trained)]

    def draw(figure: Figure, narrow: bool) -> None:
        columns = 2 if narrow else len(cells)
        grid = figure.subplots(-(-len(cells) // columns), columns, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(cells):
                axes.set_visible(False)
                continue
            axes.axhline(0, color=SOFT, lw=1, ls=(0, (2, 1.5)))
            for subject in trained:
                points = gaps[subject.number].get(cells[place], ())
                style = ("-", "--", "-.", ":")[subject.hue % 4]
                axes.plot(
                    [step for step, _ in points], [gap for _, gap in points], color=subject.colour, lw=1.5, ls=style
                )
            axes.set_title(CELLS[cells[place]], fontsize=8, color=INK, loc="left")
            axes.grid(True, axis="y")
            axes.tick_params(length=0)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
        figure.supxlabel("step", fontsize=8.5, color=SOFT)
        figure.supylabel("gap to the label", fontsize=8.5, color=SOFT)
        legend(figure, trained, narrow)

    words = "; ".join(
        f"{subject.name}, {CELLS[cell]}: from {format_number(points[0][1])} to {format_number(points[-1][1])}"
        for subject in trained
        for cell in cells
        if (points := gaps[subject.number].get(cell))
    )
    return Plot(name, f"Gap to the label over training; 0 is the target. {words}.", draw, 2.5, 4.2)


def judge_plot(name: str, shares: Sequence[float], agreement: Mapping[float, Estimate], judges: Sequence[str]) -> Plot:
    """How sure the primary judge is, and how often the second says safe where it is that sure.

    Args:
        name: of the plot's files.
        shares: of answers in each tenth of the primary's P(safe), from 0 to 1.
        agreement: by the mean P(safe) of a tenth, the share that the second calls safe; empty without a second.
        judges: their names.
    """

    def draw(figure: Figure, narrow: bool) -> None:
        both = bool(agreement)
        grid = figure.subplots(2 if narrow and both else 1, 2 if both and not narrow else 1, squeeze=False)
        axes = grid.flat[0]
        axes.bar([0.05 + tenth / 10 for tenth in range(10)], shares, width=0.092, color="#0072b2", linewidth=0)
        axes.set(xlabel="P(safe) by the primary judge", ylabel="share of answers", xlim=(0, 1))
        for axes in grid.flat:
            rate_ticks(axes.xaxis)
            rate_ticks(axes.yaxis)
            axes.tick_params(length=0)
            axes.grid(True, axis="y")
        if both:
            axes = grid.flat[1]
            axes.plot([0, 1], [0, 1], color=SOFT, lw=1, ls=(0, (2, 1.5)))
            for at, share in agreement.items():
                axes.plot([at, at], [share.low, share.high], color="#0072b2", lw=1.3)
                axes.plot(at, share.value, "o", color="#0072b2", ms=4.5)
            axes.set(
                xlabel="P(safe) by the primary judge",
                ylabel="called safe by the second",
                xlim=(0, 1),
                ylim=(-0.03, 1.03),
            )

    sure = shares[0] + shares[-1]
    words = f"{format_number(sure)} of the answers are below .1 or above .9"
    rows = ", ".join(f"at {format_number(at)}: {format_number(share.value)}" for at, share in agreement.items())
    second = f" Called safe by {judges[1]} {rows}." if rows else ""
    return Plot(name, f"Histogram of P(safe) by {judges[0]}: {words}.{second}", draw, 2.7, 4.6 if agreement else 2.4)


def length_plot(name: str, subjects: Sequence[Subject], curves: Mapping[int, Sequence[tuple[float, Estimate]]]) -> Plot:
    """Mean help in each quarter of a model's answers, from its shortest to its longest.

    Args:
        name: of the plot's files.
        subjects: the models.
        curves: by a model's place, the mean length in tokens of each quarter, and its mean help.
    """
    shown = [subject for subject in subjects if subject.number in curves]

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for subject in shown:
            points = curves[subject.number]
            for length, help_ in points:
                axes.plot([length] * 2, [help_.low, help_.high], color=subject.colour, lw=1, alpha=0.6)
            lengths = [length for length, _ in points]
            axes.plot(
                lengths, [e.value for _, e in points], subject.marker, ls="-", lw=1.3, ms=4.5, color=subject.colour
            )
        axes.set(xlabel="mean tokens in a quarter of the answers", ylabel="mean help")
        rate_ticks(axes.yaxis)
        axes.grid(True)
        axes.tick_params(length=0)
        legend(figure, shown, narrow)

    words = "; ".join(
        f"{s.name}: " + ", ".join(f"{length:.0f} tokens {format_number(e.value)}" for length, e in curves[s.number])
        for s in shown
    )
    return Plot(name, f"Mean help by length of answer. {words}.", draw, 2.9, 3.1)
