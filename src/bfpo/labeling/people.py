"""Merging of people's answers from a queue into the preference set."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bfpo.errors import did_you_mean
from bfpo.labeling.queue import random_rows
from bfpo.labeling.stored import stored_rows
from bfpo.preferences.answers import ASKED_OF_PAIR, PAIR, answer_names, answers_of, is_pair
from bfpo.preferences.label_columns import HUMAN, QUEUE, RANDOM, flag_sources, order_source
from bfpo.preferences.ordering import swapped
from bfpo.preferences.reading import Row, open_source
from bfpo.preferences.schema import PreferenceDataError, Problem

_OTHER = {"chosen": "rejected", "rejected": "chosen"}


def with_answers(rows: Sequence[Row], name: str, folder: Path | None = None) -> Sequence[Row]:
    """Fill in labels that are open, or a judge's, from a queue that people answered.

    Labels from rows of the queue's random part get the source "random", others "queue" (see `random_rows`).

    Args:
        rows: canonical rows of the set, with their row numbers.
        name: queue that `label` wrote and people filled in. In ``asks`` an answer's entry is true, false or a
            probability that it is safe, and "order" whether ``chosen``, as written there, is the more helpful answer;
            null is unanswered.
        folder: folder for temporary files with the queue and the result; None keeps them in memory.

    Raises:
        PreferenceDataError: if the queue belongs to another set, or an answer is invalid or contradicts a label; with
            every problem.
    """
    queue = _Queue(name, folder)
    return stored_rows(_answered(rows, queue), folder)


def _answered(rows: Iterable[Row], queue: _Queue) -> Iterator[Row]:
    for row in rows:
        for place in queue.about(row["row"]):
            row = queue.answered(row, place)
        yield row
    queue.check()


class _Queue:
    """A queue that people answered; of each of its rows, some numbers are in memory.

    Args:
        name: its file.
        folder: folder for a temporary file with its rows; None keeps them in memory.

    Raises:
        PreferenceDataError: if the file can't be read.
    """

    def __init__(self, name: str, folder: Path | None) -> None:
        self._name = name
        self._problems: list[Problem] = []
        # Of each row: its number in the queue's file, and that of the row of the set, -1 if that is not a number.
        self._numbers, self._rows_of_set = array("q"), array("q")
        self._draws: list[int | None] = []
        self._is_random, self._is_complete = bytearray(), bytearray()
        self._rows = stored_rows(self._read(), folder)
        self._order = np.argsort(self._rows_of_set, kind="stable")
        self._sorted = np.asarray(self._rows_of_set)[self._order]
        self._is_matched = np.zeros(len(self._rows), dtype=bool)
        is_known = not self._problems
        self._sample = random_rows(self._draws, self._is_random, self._is_complete) if is_known else set[int]()

    def _read(self) -> Iterator[Row]:
        source, unreadable = open_source(self._name), list[Problem]()
        for number, row in source.read(unreadable):
            at, asks, wrong = row.get("row"), row.get("asks"), _wrong_draw(number, row)
            self._numbers.append(number)
            self._rows_of_set.append(at if isinstance(at, int) and 0 <= at < 2**63 else -1)
            self._draws.append(None if wrong else row.get("draw"))
            self._is_random.append(row.get("placed") == "random")
            self._is_complete.append(isinstance(asks, Mapping) and None not in asks.values())
            self._problems += [wrong] if wrong else []
            yield row
        if unreadable:
            raise PreferenceDataError(source.name, unreadable)

    def about(self, number: int) -> Iterator[int]:
        """Places in the queue of a row of the set."""
        first, last = np.searchsorted(self._sorted, [number, number + 1]).tolist()
        return (int(place) for place in self._order[first:last])

    def answered(self, row: Row, place: int) -> Row:
        """The row with the answers at a place in the queue, or as it is if there is a problem, which is noted."""
        number, queued = self._numbers[place], self._rows[place]
        if not _is_same(row, queued):
            return row
        self._is_matched[place] = True
        answers, wrong = _answers(number, queued)
        wrong = wrong or _contradictions(number, row, queued, answers)
        self._problems += wrong
        return row if wrong else _with(row, queued, answers, place in self._sample)

    def check(self) -> None:
        """Raise the problems, once all rows of the set have been seen."""
        for place in np.flatnonzero(~self._is_matched).tolist():
            number, queued = self._numbers[place], self._rows[place]
            what = f"row {queued.get('row')!r} of the set doesn't match"
            self._problems += [*_answers(number, queued)[1], Problem(number, "row", what, "name the queue of this set")]
        if self._problems:
            in_order = sorted(self._problems, key=lambda problem: problem.row or 0)
            raise PreferenceDataError(self._name, in_order, is_set=False)


def _wrong_draw(number: int, queued: Row) -> Problem | None:
    draw, placed = queued.get("draw"), queued.get("placed", "value")
    if (draw is None or (isinstance(draw, int) and draw >= 0)) and placed in ("value", "random"):
        return None
    what = f"{draw!r}, placed by {placed!r}, is not a valid draw"
    return Problem(number, "draw", what, "keep it as 'bfpo label' wrote it")


def _answers(number: int, queued: Row) -> tuple[dict[str, float], list[Problem]]:
    """Valid answers, and problems of invalid ones."""
    asks = queued.get("asks")
    if not isinstance(asks, Mapping):
        return {}, [Problem(number, "asks", "it has no answers", "name a queue that 'bfpo label' wrote")]
    responses = queued.get("responses")
    many = range(len(responses)) if isinstance(responses, list) else ()
    known = ASKED_OF_PAIR if "chosen" in queued else [str(at) for at in many]
    answers: dict[str, float] = {}
    problems = []
    for name in PAIR:
        if asks.get(name, 0) is None and queued.get(f"{name}_is_safe") is not None:
            what = f"{queued[f'{name}_is_safe']!r} is not where an answer belongs"
            problems.append(Problem(number, f"{name}_is_safe", what, f"write it under asks.{name}"))
    for ask, value in asks.items():
        if ask not in known:
            what = f"it is not in the queue{did_you_mean(ask, known)}"
            problems.append(Problem(number, f"asks.{ask}", what, "leave it out"))
        elif value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            remedy = "write true, false, a probability, or null if unanswered"
            problems.append(Problem(number, f"asks.{ask}", f"{value!r} is not an answer", remedy))
        elif value is not None:
            answers[ask] = float(value)
    return answers, problems


def _is_same(row: Row, queued: Row) -> bool:
    """Whether the queued row is this one, in either order."""
    if row["prompt"] != queued.get("prompt"):
        return False
    if not is_pair(row):
        return row["responses"] == queued.get("responses")
    texts = [queued.get(name) for name in PAIR]
    return answers_of(row) in (texts, texts[::-1])


def _label(row: Row, queued: Row, ask: str, answer: float) -> tuple[str, str, float | None, float]:
    """Returns (its name in ``labelled_by``, column, people's current value, new value)."""
    if not is_pair(row):
        had = row["is_safe"][int(ask)] if flag_sources(row)[int(ask)] in HUMAN else None
        return ask, "is_safe", had, answer
    is_swapped = row["chosen"] != queued["chosen"]
    if ask == "order":
        had = row["chosen_is_better"] if order_source(row) in HUMAN else None
        return ask, "chosen_is_better", had, 1 - answer if is_swapped else answer
    name = _OTHER[ask] if is_swapped else ask
    return name, f"{name}_is_safe", row[f"{name}_is_safe"] if _sources(row)[name] in HUMAN else None, answer


def _contradictions(number: int, row: Row, queued: Row, answers: Mapping[str, float]) -> list[Problem]:
    problems = []
    for ask, answer in answers.items():
        _, column, had, wanted = _label(row, queued, ask, answer)
        if had is not None and had != wanted:
            what = f"{answer:g} contradicts {column} {had:g} in row {row['row']} of the set"
            problems.append(Problem(number, f"asks.{ask}", what, "correct it there, or set it to null here"))
    return problems


def _with(row: Row, queued: Row, answers: Mapping[str, float], is_random: bool) -> Row:
    """The row with the answers filled in, swapped if people prefer the second answer."""
    changed: dict[str, Any] = dict(row)
    by = _sources(row)
    for ask, answer in answers.items():
        name, column, _, wanted = _label(row, queued, ask, answer)
        changed[column] = wanted if is_pair(row) else _replaced(changed["is_safe"], int(name), wanted)
        by[name] = by[name] if by[name] in HUMAN else QUEUE
    if is_random:
        by = {name: RANDOM if source == QUEUE else source for name, source in by.items()}
    changed["labelled_by"] = by if is_pair(row) else {"answers": list(by.values())}
    better = changed.get("chosen_is_better")
    return swapped(changed, better) if is_pair(row) and better is not None and better < 0.5 else changed


def _sources(row: Row) -> dict[str, str]:
    """Source of every label, by the name of its answer, or "order"."""
    by = dict(zip(answer_names(row), flag_sources(row), strict=True))
    return by | ({"order": order_source(row)} if is_pair(row) else {})


def _replaced(values: Sequence[Any], place: int, value: Any) -> list[Any]:
    return [value if at == place else old for at, old in enumerate(values)]
