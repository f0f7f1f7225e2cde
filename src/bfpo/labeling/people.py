"""What people answered to the queue, brought back into the set that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bfpo.errors import did_you_mean
from bfpo.labeling.filling import turned
from bfpo.preferences.reading import Row, read_rows
from bfpo.preferences.schema import PreferenceDataError, Problem

_OTHER = {"chosen": "rejected", "rejected": "chosen"}


def with_answers(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows with people's answers in the place of open labels.

    Args:
        rows: canonical rows of the set, with their row numbers.
        name: of a queue that `label` wrote, in which people filled in ``asks``: for an answer whether it is
            safe, for "order" whether ``chosen``, as it stands there, is the more helpful one; true, false, or a
            probability. What is still null was not answered.

    Raises:
        PreferenceDataError: if the queue is of another set, or an answer is none or contradicts a label; it holds
            every problem.
    """
    answered = list(rows)
    places = {row["row"]: place for place, row in enumerate(rows)}
    problems: list[Problem] = []
    for number, queued in read_rows(name, "train", None):
        answers, wrong = _answers(number, queued)
        at = queued.get("row")
        place = places.get(at) if isinstance(at, int) else None
        if place is None or not _is_same(row := answered[place], queued):
            remedy = "give the queue that was made from this set"
            wrong.append(Problem(number, "row", f"{at!r} isn't that row of the set", remedy))
        elif not wrong:
            wrong = _contradictions(number, row, queued, answers)
            if not wrong:
                answered[place] = _with(row, queued, answers)
        problems += wrong
    if problems:
        raise PreferenceDataError(name, problems, is_set=False)
    return answered


def _answers(number: int, queued: Row) -> tuple[dict[str, float], list[Problem]]:
    """What people answered, and what can't be an answer."""
    asks = queued.get("asks")
    if not isinstance(asks, Mapping):
        return {}, [Problem(number, "asks", "there are no answers", "give a queue that 'bfpo label' wrote")]
    responses = queued.get("responses") or ()
    known = ("chosen", "rejected", "order") if "chosen" in queued else [str(at) for at in range(len(responses))]
    answers: dict[str, float] = {}
    problems = []
    for ask, value in asks.items():
        if ask not in known:
            problems.append(Problem(number, f"asks.{ask}", f"nobody asked{did_you_mean(ask, known)}", "leave it out"))
        elif value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            remedy = "write true, false, a probability, or null where nobody answered"
            problems.append(Problem(number, f"asks.{ask}", f"{value!r} is no answer", remedy))
        elif value is not None:
            answers[ask] = float(value)
    return answers, problems


def _is_same(row: Row, queued: Row) -> bool:
    """Whether the queue asks about this row, either way round."""
    if row["prompt"] != queued.get("prompt"):
        return False
    if "chosen" not in row:
        return row["responses"] == queued.get("responses")
    texts = [queued.get("chosen"), queued.get("rejected")]
    return [row["chosen"], row["rejected"]] in (texts, texts[::-1])


def _label(row: Row, queued: Row, ask: str, answer: float) -> tuple[str, float | None, float]:
    """Of an answer: the column that it is about, what the set has there, and what it should have."""
    if "chosen" not in row:
        return "is_safe", row["is_safe"][int(ask)], answer
    is_turned = row["chosen"] != queued["chosen"]
    if ask == "order":
        return "chosen_is_better", row["chosen_is_better"], 1 - answer if is_turned else answer
    column = f"{_OTHER[ask] if is_turned else ask}_is_safe"
    return column, row[column], answer


def _contradictions(number: int, row: Row, queued: Row, answers: Mapping[str, float]) -> list[Problem]:
    problems = []
    for ask, answer in answers.items():
        column, had, wanted = _label(row, queued, ask, answer)
        if had is not None and had != wanted:
            what = f"{answer:g} contradicts {column} {had:g} in row {row['row']} of the set"
            problems.append(Problem(number, f"asks.{ask}", what, "settle it there, or set it to null here"))
    return problems


def _with(row: Row, queued: Row, answers: Mapping[str, float]) -> Row:
    """The row with the answers; turned where people find the second answer more helpful."""
    changed: dict[str, Any] = dict(row)
    for ask, answer in answers.items():
        column, _, wanted = _label(row, queued, ask, answer)
        if "chosen" not in row:
            changed["is_safe"] = [wanted if at == int(ask) else flag for at, flag in enumerate(changed["is_safe"])]
        else:
            changed[column] = wanted
    better = changed.get("chosen_is_better")
    return turned(changed, better) if "chosen" in row and better is not None and better < 0.5 else changed
