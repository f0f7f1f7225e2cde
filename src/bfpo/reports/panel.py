"""What a panel of the page is made of: a sentence, plots, tables; or the reason why there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bfpo.reports.drawing import Plot
from bfpo.reports.subjects import Subject
from bfpo.safehelp.compare import Comparison, ComparisonRow

Tone = Literal["", "good", "bad", "few"]


@dataclass(frozen=True)
class Cell:
    """A table's cell: its text, what colour it deserves, and a smaller second line."""

    text: str
    tone: Tone = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption; the first cell of a row is the row's head.

    Attributes:
        caption: what it shows.
        head: of the columns.
        rows: cells, as many as the head has.
        folded: whether it opens only when asked, because a plot above it shows the same.
    """

    caption: str
    head: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False


@dataclass(frozen=True)
class Panel:
    """A section of the page.

    Attributes:
        anchor: its id.
        title: its heading.
        lead: what to see in it, in a sentence or two.
        plots: its drawings.
        choices: what each plot shows, if one is shown at a time.
        tables: its tables.
        notes: how to read it.
        absent: why it has nothing to show; then all else is empty.
    """

    anchor: str
    title: str
    lead: str = ""
    plots: Sequence[Plot] = ()
    choices: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    absent: str = ""


@dataclass(frozen=True)
class Story:
    """All that the panels tell.

    Attributes:
        title: of the page.
        subjects: the models.
        comparisons: by a model's place, how it differs from the baseline, prompt by prompt.
        incomparable: by a model's place, why it can't be compared with the baseline.
        training: by a model's place, its training run's ``run.json``.
        context: what else the header says.
    """

    title: str
    subjects: Sequence[Subject]
    comparisons: Mapping[int, Comparison] = field(default_factory=dict)
    incomparable: Mapping[int, str] = field(default_factory=dict)
    training: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    context: Mapping[str, str] = field(default_factory=dict)

    @property
    def baseline(self) -> Subject | None:
        """The model that others are compared with; None on a page of one."""
        return next((subject for subject in self.subjects if subject.is_baseline), None)

    @property
    def others(self) -> list[Subject]:
        """All but the baseline."""
        return [subject for subject in self.subjects if not subject.is_baseline]

    def established(self, group: str, endpoint: str, family: str) -> frozenset[int]:
        """Places of models whose rate in a category or attack differs from the baseline's, after correction."""
        return frozenset(
            place
            for place, comparison in self.comparisons.items()
            for row in comparison.rows
            if row.family == family and row.group == group and row.endpoint == endpoint and is_established(row)
        )


def is_established(row: ComparisonRow) -> bool:
    """Whether a difference's interval excludes 0, and its p-value, corrected within its family, is below .05."""
    excludes = row.difference.low > 0 or row.difference.high < 0
    return excludes and (row.p if row.adjusted_p is None else row.adjusted_p) < 0.05
