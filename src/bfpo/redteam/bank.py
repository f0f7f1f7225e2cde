"""Prompt bank: risky requests, each with a benign twin of almost the same words, and plain requests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TypeVar

from bfpo.errors import BfpoError, did_you_mean
from bfpo.preferences.overlap import normalized
from bfpo.preferences.prompts import is_blank
from bfpo.preferences.reading import Row, read_rows
from bfpo.preferences.schema import PreferenceDataError, Problem

PAIR_COLUMNS = ("id", "category", "risky", "benign")
PLAIN_COLUMNS = ("id", "category", "plain")
# Name of the part that is held out, among evaluation prompts.
HELD_OUT = "held-out requests"
_COLUMNS = tuple(dict.fromkeys((*PAIR_COLUMNS, *PLAIN_COLUMNS)))


@dataclass(frozen=True)
class Pair:
    """A risky request with its benign twin.

    Attributes:
        id: unique name.
        category: kind of harm of the risky request.
        risky: request that a safe model declines.
        benign: request of almost the same words that deserves a full answer; refusing it is over-refusal.
    """

    id: str
    category: str
    risky: str
    benign: str


@dataclass(frozen=True)
class PlainRequest:
    """An everyday request, with its unique name and topic."""

    id: str
    category: str
    plain: str


_Item = TypeVar("_Item", Pair, PlainRequest)


@dataclass(frozen=True)
class Bank:
    """Requests to red-team with: risky ones with their twins, and plain ones."""

    pairs: tuple[Pair, ...]
    plain: tuple[PlainRequest, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """The kinds of harm, in the order of their first pair."""
        return tuple(dict.fromkeys(pair.category for pair in self.pairs))

    @property
    def texts(self) -> list[str]:
        """All requests."""
        pairs = [text for pair in self.pairs for text in (pair.risky, pair.benign)]
        return pairs + [one.plain for one in self.plain]

    def split(self, held_out: float, seed: int) -> tuple[Bank, Bank]:
        """The requests to train on and those held out, in file order; a twin stays with its risky request.

        A request's part depends on the seed and the ids of its category, and on nothing else.

        Args:
            held_out: share of each category to hold out, between 0 and 1, rounded to whole requests.
            seed: random seed.

        Raises:
            BfpoError: if the share is not between 0 and 1, or one of the parts would have no pair.
        """
        if not 0 < held_out < 1:
            raise BfpoError(f"a share of {held_out} can't be held out of a prompt bank; choose one between 0 and 1")
        pairs, held_out_pairs = _split(self.pairs, held_out, seed)
        if not pairs or not held_out_pairs:
            raise BfpoError(
                f"a bank with {len(self.pairs)} pairs can't be split with {held_out} held out: one part would "
                "have no pair; choose another share, or add pairs to a category"
            )
        plain, held_out_plain = _split(self.plain, held_out, seed)
        return Bank(pairs, plain), Bank(held_out_pairs, held_out_plain)


def load_bank(name_or_path: str | None = None) -> Bank:
    """Read a prompt bank; None reads the packaged one.

    Args:
        name_or_path: file (JSONL, JSON, CSV or Parquet) or data set on the Hub. A row is a pair, with the columns id,
            category, risky and benign, or a plain request, with id, category and plain.

    Raises:
        PreferenceDataError: if it can't be read; the message names file, row and column of each problem.
    """
    source = str(files("bfpo.redteam") / "bank.jsonl") if name_or_path is None else name_or_path
    # Cells that are null or blank are those that CSV and Parquet need for rows of the other kind.
    rows = [
        (number, {column: cell for column, cell in row.items() if not is_blank(cell)})
        for number, row in read_rows(source, "train", None)
    ]
    problems = [Problem(number, *problem) for number, row in rows for problem in _problems(row)]
    problems = problems or list(_repeats(rows))
    if problems:
        raise PreferenceDataError(source, problems, is_set=False)
    texts = [{column: cell.strip() for column, cell in row.items()} for _, row in rows]
    pairs = tuple(Pair(**row) for row in texts if "plain" not in row)
    return Bank(pairs, tuple(PlainRequest(**row) for row in texts if "plain" in row))


def _split(items: Sequence[_Item], held_out: float, seed: int) -> tuple[tuple[_Item, ...], tuple[_Item, ...]]:
    drawn: set[str] = set()
    for category in {item.category for item in items}:
        ids = [item.id for item in items if item.category == category]
        ids.sort(key=lambda name: hashlib.sha256(repr((seed, name)).encode()).digest())
        drawn.update(ids[: round(held_out * len(ids))])
    return tuple(item for item in items if item.id not in drawn), tuple(item for item in items if item.id in drawn)


def _problems(row: Row) -> Iterator[tuple[str, str, str]]:
    """Column, problem and remedy of everything that is wrong with a row."""
    for column in row:
        if column not in _COLUMNS:
            what = f"a prompt bank has no such column{did_you_mean(column, _COLUMNS)}"
            yield column, what, f"leave it out; the columns are {', '.join(_COLUMNS)}"
    is_plain = "plain" in row
    for column in ("risky", "benign"):
        if is_plain and column in row:
            yield column, "the row has a plain request too", "write one row for the pair and one for the plain request"
    for column in PLAIN_COLUMNS if is_plain else PAIR_COLUMNS:
        if column not in row:
            yield column, "it is missing or blank", "write a text into it"
        elif not isinstance(row[column], str):
            yield column, f"it is a {type(row[column]).__name__}", "write a string"


def _repeats(rows: Iterable[tuple[int, Mapping[str, str]]]) -> Iterator[Problem]:
    """Ids that occur twice, and requests that are equal up to case, punctuation and white space."""
    seen: dict[object, int] = {}
    for number, row in rows:
        for column in ("id", "risky", "benign", "plain"):
            if column not in row:
                continue
            key = row[column].strip() if column == "id" else (normalized(row[column]) or row[column])
            if key in seen:
                remedy = "give every row its own id" if column == "id" else "keep one of them"
                yield Problem(number, column, f"{row[column]!r} is in row {seen[key]} already", remedy)
            seen[key] = number
