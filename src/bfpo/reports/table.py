"""Evaluations side by side, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from bfpo.safehelp.records import Estimate, Evaluation

GENERATION = ("helpful", "harmless", "over_refusal", "incoherent")
LIKELIHOOD = ("likelihood/helpful", "likelihood/harmless", "likelihood/over_refusal")
# Whether more of it is better.
HIGHER_IS_BETTER = {name: name not in ("over_refusal", "incoherent") for name in GENERATION + LIKELIHOOD}


def score_table(evaluations: Sequence[Evaluation]) -> Table:
    """One row a model: each figure with its 95 % interval; the head says how many prompts are behind it."""
    table = Table(title=f"SafeHelp ({evaluations[0].suite}): value [95 % interval]", title_justify="left")
    table.add_column("model", no_wrap=True)
    for name in GENERATION + LIKELIHOOD:
        sign = "↑" if HIGHER_IS_BETTER[name] else "↓"
        label = name.replace("likelihood/", "likelihood\n").replace("_", "-")
        table.add_column(f"{label} {sign}\nn = {evaluations[0].scores[name].n}", justify="right")
    for evaluation in evaluations:
        cells = [format_estimate(evaluation.scores[name]) for name in GENERATION + LIKELIHOOD]
        table.add_row(evaluation.model, *cells)
    return table


def format_estimate(estimate: Estimate) -> str:
    """``.86 [.83 .89]``."""
    value, low, high = (_short(number) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low} {high}]"


def _short(number: float) -> str:
    return f"{number:.2f}".replace("0.", ".", 1) if number < 0.995 else "1.0"
