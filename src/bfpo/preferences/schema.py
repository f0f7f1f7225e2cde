"""The documented columns of preferences, and the error that lists all problems of a source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bfpo.errors import BfpoError

PAIR_COLUMNS = (
    "prompt",
    "chosen",
    "rejected",
    "chosen_is_safe",
    "rejected_is_safe",
    "chosen_is_better",
    "chosen_is_safer",
    "category",
    "row",
)
GROUP_COLUMNS = ("prompt", "responses", "helpfulness", "is_safe", "category", "row")
# Columns that rows have only if the source has them.
OPTIONAL_COLUMNS = ("tools", "weight", "labelled_by", "judged_as")
# Those of them that `bfpo label` writes as objects; canonical rows hold their JSON text.
LABEL_COLUMNS = ("labelled_by", "judged_as")
_ByKind = dict[str, tuple[str, ...]]
# Rewards of the answers by another objective, which MODPO reads; by kind of rows, and only if the source has them.
REWARD_COLUMNS: _ByKind = {"pairs": ("chosen_reward", "rejected_reward"), "groups": ("reward",)}
# Whether each answer was cut when it was sampled, so that it has no end to train on; by kind of rows, and likewise.
TRUNCATED_COLUMNS: _ByKind = {"pairs": ("chosen_truncated", "rejected_truncated"), "groups": ("truncated",)}
# Columns with the harm of each answer, by kind of rows, which they have only if the source has it.
HARM_COLUMNS: _ByKind = {"pairs": ("chosen_harm", "rejected_harm"), "groups": ("harm",)}

_SHOWN = 20


def as_list(value: Any) -> list[Any]:
    """A list as it is, anything else as a list of one."""
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Problem:
    """One problem of a source.

    Attributes:
        row: 1-based row number; None for the whole file.
        column: column; None for the whole row or file.
        what: description of the problem.
        remedy: how to fix it.
    """

    row: int | None
    column: str | None
    what: str
    remedy: str

    def __str__(self) -> str:
        place = ", ".join(
            part for part in (self.row and f"row {self.row}", self.column and f"column {self.column!r}") if part
        )
        return f"{place + ': ' if place else ''}{self.what}; {self.remedy}"


class RowError(ValueError):
    """A row that can't be read, as the parts of a `Problem`."""

    def __init__(self, column: str | None, what: str, remedy: str) -> None:
        super().__init__(what)
        self.column, self.what, self.remedy = column, what, remedy

    def at(self, row: int) -> Problem:
        """The problem of the row with this number."""
        return Problem(row, self.column, self.what, self.remedy)


class LeftOutError(Exception):
    """A row that can be read and is of no use, with the reason under which it is counted."""


class PreferenceDataError(BfpoError):
    """A source that can't be used, with all its problems.

    Attributes:
        source: the file or data set.
        problems: every problem, in row order. The message shows the first and how to list the rest, or the first 20 if
            the source is not a preference set (``is_set`` false).
    """

    def __init__(self, source: str, problems: Iterable[Problem], *, is_set: bool = True) -> None:
        self.source = source
        self.problems: Sequence[Problem] = tuple(problems)
        if is_set:
            more = len(self.problems) - 1
            tail = f" (and {more} more: 'bfpo data check {source}' lists all)" if more else ""
            super().__init__(f"{source}: {self.problems[0]}{tail}")
        else:
            shown = "\n  ".join(str(problem) for problem in self.problems[:_SHOWN])
            more = len(self.problems) - _SHOWN
            super().__init__(f"{source}: {shown}" + (f"\n  and {more} more" if more > 0 else ""))
