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
    """Tables of sampled answers and of likelihoods: a row a model, each figure with its 95 % interval.

    A figure that no run measured has no column, and a table without columns is left out.
    """
    suite = evaluations[0].header.suite
    titles = {
        f"SafeHelp ({suite}), sampled answers: value [95 % interval]": GENERATION,
        f"SafeHelp ({suite}), the better of two answers is likelier: value [95 % interval]": LIKELIHOOD,
    }
    measured = {name for evaluation in evaluations for name in evaluation.scores}
    shown = {title: [name for name in names if name in measured] for title, names in titles.items()}
    return [_table(title, names, evaluations) for title, names in shown.items() if names]


def _table(title: str, names: Sequence[str], evaluations: Sequence[Evaluation]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("model", no_wrap=True)
    for name in names:
        label = name.removeprefix("likelihood/").replace("_", "-")
        sign = "↑" if HIGHER_IS_BETTER[name] else "↓"
        n = max(evaluation.scores[name].n for evaluation in evaluations if name in evaluation.scores)
        table.add_column(f"{label} {sign}\nn = {n:,}", justify="right", no_wrap=True)
    for evaluation in evaluations:
        found = [evaluation.scores.get(name) for name in names]
        table.add_row(Text(evaluation.model), *(Text(format_estimate(e) if e else "–") for e in found))
    return table


def format_estimate(estimate: Estimate, digits: int = 2) -> str:
    """``.86 [.83, .89]``."""
    value, low, high = (format_number(number, digits) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"
