"""Who is on the page: each evaluation with a name of its own, its colour and marker, and the one others start from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bfpo.errors import BfpoError, did_you_mean
from bfpo.reports.drawing import BASELINE_MARKER, COLOURS, MARKERS, NEUTRAL, short
from bfpo.safehelp.records import Evaluation


@dataclass(frozen=True)
class Subject:
    """One evaluation on a page.

    Attributes:
        evaluation: what is shown.
        name: what the page calls it, unique on the page.
        number: its place on the page, from 0.
        hue: its place among those that are coloured.
        is_baseline: whether others are compared with it; it is drawn in grey.
    """

    evaluation: Evaluation
    name: str
    number: int
    hue: int
    is_baseline: bool

    @property
    def short(self) -> str:
        """Its name as plots write it."""
        return short(self.name)

    @property
    def colour(self) -> str:
        """Its colour in plots."""
        return NEUTRAL if self.is_baseline else COLOURS[self.hue % len(COLOURS)]

    @property
    def marker(self) -> str:
        """Its marker in plots."""
        return BASELINE_MARKER if self.is_baseline else MARKERS[self.hue % len(MARKERS)]


def subjects_of(evaluations: Sequence[Evaluation], baseline: str | int | None = None) -> list[Subject]:
    """Name every evaluation and choose the baseline.

    Args:
        evaluations: at least one.
        baseline: model that others are compared with, or its place; by default the first.

    Raises:
        BfpoError: if no model has that name, or nothing is to be shown.
    """
    if not evaluations:
        raise BfpoError("a report needs at least one evaluation; name the folders that 'bfpo evaluate' wrote")
    models = [evaluation.model for evaluation in evaluations]
    if isinstance(baseline, str) and baseline not in models:
        raise BfpoError(
            f"no evaluation of a model {baseline!r}{did_you_mean(baseline, models)}; there are {', '.join(models)}"
        )
    start = models.index(baseline) if isinstance(baseline, str) else baseline or 0
    seen: Counter[str] = Counter()
    subjects = []
    for number, evaluation in enumerate(evaluations):
        seen[evaluation.model] += 1
        again = f" ({seen[evaluation.model]})" if seen[evaluation.model] > 1 else ""
        several = len(models) > 1
        hue = number - (several and number > start)
        subjects.append(Subject(evaluation, evaluation.model + again, number, hue, several and number == start))
    return subjects
