"""Tables of evaluations for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from bfpo.reports.formats import arrow, format_estimate
from bfpo.safehelp.figures import HEADLINE, LIKELIHOOD, Figure
from bfpo.safehelp.records import Evaluation
from bfpo.statistics.intervals import Estimate


def score_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """A table of sampled answers and one of likelihoods, with one row per model and the figures that were measured."""
    suites = ", ".join(dict.fromkeys(evaluation.header.suite for evaluation in evaluations))
    titles = {
        f"SafeHelp ({suites}), sampled answers: value [95 % interval]": HEADLINE.values(),
        f"SafeHelp ({suites}), likelihood of given answers: value [95 % interval]": LIKELIHOOD.values(),
    }
    measured = {name for evaluation in evaluations for name in evaluation.scores}
    shown = {title: [figure for figure in figures if figure.name in measured] for title, figures in titles.items()}
    return [_table(title, figures, evaluations) for title, figures in shown.items() if figures]


def _table(title: str, figures: Sequence[Figure], evaluations: Sequence[Evaluation]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    counts = {figure: {e.scores[figure.name].n for e in evaluations if figure.name in e.scores} for figure in figures}
    for figure in figures:
        n = f"\nn = {max(counts[figure]):,}" if len(counts[figure]) == 1 else ""
        heading = f"{figure.label.removeprefix('likelihood, ')} {arrow(figure.higher_is_better)}{n}"
        table.add_column(heading, justify="right", overflow="fold")

    def cell(estimate: Estimate | None, figure: Figure) -> Text:
        n = f"\nn = {estimate.n:,}" if estimate and len(counts[figure]) > 1 else ""
        return Text(f"{format_estimate(estimate)}{n}" if estimate else "–")

    for evaluation in evaluations:
        table.add_row(Text(evaluation.model), *(cell(evaluation.scores.get(one.name), one) for one in figures))
    return table
