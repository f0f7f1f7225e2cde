"""Tables of evaluations for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from bfpo.reports.formats import arrow, format_estimate
from bfpo.safehelp.figures import HEADLINE, LIKELIHOOD, Figure
from bfpo.safehelp.records import Evaluation


def score_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """A table of sampled answers and one of likelihoods, with one row per model and the figures that were measured."""
    suite = evaluations[0].header.suite
    titles = {
        f"SafeHelp ({suite}), sampled answers: value [95 % interval]": HEADLINE.values(),
        f"SafeHelp ({suite}), likelihood of given answers: value [95 % interval]": LIKELIHOOD.values(),
    }
    measured = {name for evaluation in evaluations for name in evaluation.scores}
    shown = {title: [figure for figure in figures if figure.name in measured] for title, figures in titles.items()}
    return [_table(title, figures, evaluations) for title, figures in shown.items() if figures]


def _table(title: str, figures: Sequence[Figure], evaluations: Sequence[Evaluation]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    for figure in figures:
        n = max(scores[figure.name].n for e in evaluations if figure.name in (scores := e.scores))
        heading = f"{figure.label.removeprefix('likelihood, ')} {arrow(figure.higher_is_better)}\nn = {n:,}"
        table.add_column(heading, justify="right", overflow="fold")
    for evaluation in evaluations:
        found = [evaluation.scores.get(figure.name) for figure in figures]
        table.add_row(Text(evaluation.model), *(Text(format_estimate(e) if e else "–") for e in found))
    return table
