"""Evaluations side by side, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from bfpo.reports.formats import format_number
from bfpo.safehelp.records import Evaluation
from bfpo.statistics.intervals import Estimate

GENERATION = ("helpful", "harmless", "over_refusal", "incoherent")
LIKELIHOOD = ("likelihood/helpful", "likelihood/harmless", "likelihood/over_refusal")
# Whether more of it is better.
HIGHER_IS_BETTER = {name: name not in ("over_refusal", "incoherent") for name in GENERATION + LIKELIHOOD}


def score_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """Two tables, of sampled answers and of likelihoods: a row a model, each figure with its 95 % interval."""
    suite = evaluations[0].header.suite
    return [
        _table(f"SafeHelp ({suite}), sampled answers: value [95 % interval]", GENERATION, evaluations),
        _table(
            f"SafeHelp ({suite}), the better of two answers is likelier: value [95 % interval]", LIKELIHOOD, evaluations
        ),
    ]


def _table(title: str, names: Sequence[str], evaluations: Sequence[Evaluation]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("model", no_wrap=True)
    for name in names:
        label = name.removeprefix("likelihood/").replace("_", "-")
        sign = "↑" if HIGHER_IS_BETTER[name] else "↓"
        table.add_column(f"{label} {sign}\nn = {evaluations[0].scores[name].n}", justify="right", no_wrap=True)
    for evaluation in evaluations:
        table.add_row(Text(evaluation.model), *(Text(format_estimate(evaluation.scores[name])) for name in names))
    return table


def format_estimate(estimate: Estimate, digits: int = 2) -> str:
    """``.86 [.83, .89]``."""
    value, low, high = (format_number(number, digits) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"
