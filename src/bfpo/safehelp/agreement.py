"""How far the two judges of a run agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from bfpo.safehelp.records import Evaluation
from bfpo.statistics.intervals import Estimate
from bfpo.statistics.judging import cohens_kappa

LABELS = ("safe", "controversial", "unsafe")


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same answers.

    Attributes:
        first: the primary judge's id.
        second: the other's.
        kappa: Cohen's, over answers that both could judge; None where both always say one and the same word.
        observed: share of those on which they say the same word.
        table: how often the first said one word and the second another, unparsed ones included.
        n: answers that both could judge.
    """

    first: str
    second: str
    kappa: Estimate | None
    observed: float
    table: Mapping[tuple[str, str], int]
    n: int


def agreement(evaluation: Evaluation) -> Agreement | None:
    """The agreement of a run's judges; None without a second one or without an answer that both could judge."""
    judged = [record.verdicts for record in evaluation.generations if len(record.verdicts) > 1]
    table = Counter((verdicts[0].label, verdicts[1].label) for verdicts in judged)
    square = [[table[first, second] for second in LABELS] for first in LABELS]
    n = sum(map(sum, square))
    if n == 0:
        return None
    return Agreement(
        first=judged[0][0].judge_id,
        second=judged[0][1].judge_id,
        kappa=cohens_kappa(square),
        observed=sum(square[at][at] for at in range(len(LABELS))) / n,
        table=dict(table),
        n=n,
    )
