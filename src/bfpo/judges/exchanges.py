"""Answers of preference rows as exchanges for judges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bfpo.judges.verdict import Exchange
from bfpo.preferences.answers import answers_of, flags_of
from bfpo.preferences.messages import rendered
from bfpo.preferences.reading import Row


@dataclass(frozen=True)
class Exchanges(Iterable[Exchange]):
    """All answers of canonical rows as exchanges, in order, made anew in each iteration.

    Attributes:
        rows: the rows.
    """

    rows: Iterable[Row]

    def __iter__(self) -> Iterator[Exchange]:
        return (exchange_of(row, number) for row in self.rows for number in range(len(flags_of(row))))


def exchange_of(row: Row, number: int) -> Exchange:
    """One answer of a canonical row as an exchange for judges."""
    return Exchange(rendered(row["prompt"]), rendered(answers_of(row)[number]))
