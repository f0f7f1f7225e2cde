"""Checks of canonical rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from bfpo.preferences.reading import Row
from bfpo.preferences.schema import Problem

FLAG_REMEDY = "write true, false, a probability in [0, 1], or null where it is unknown"


def row_problems(number: int, row: Row, order_may_be_open: bool = False) -> Iterator[Problem]:
    """Every problem of one canonical row; ``order_may_be_open`` permits a null ``chosen_is_better``."""
    answers = _answers(row)
    for column, text in [("prompt", row["prompt"]), *answers]:
        what = _text_problem(text)
        if what:
            yield Problem(number, column, what, "write a string, or a list of {role, content} messages")
    if any(isinstance(text, list) != isinstance(row["prompt"], list) for _, text in answers):
        yield Problem(
            number, None, "prompt and answers have different types", "write all as strings or all as messages"
        )
    texts = [repr(text) for _, text in answers]
    if "chosen" in row and texts[0] == texts[1]:
        yield Problem(number, "rejected", "it is the same as 'chosen'", "remove the row: it compares nothing")
    for column, value in _probabilities(row):
        if value is not None and not _is_probability(value):
            yield Problem(number, column, f"{value!r} is not a probability", FLAG_REMEDY)
    if "chosen" in row and row["chosen_is_better"] is None and not order_may_be_open:
        yield Problem(number, "chosen_is_better", "it is null", "write a probability, or leave the column out")
    if not isinstance(row.get("category"), str | None):
        yield Problem(
            number, "category", f"{row['category']!r} is not a string", "write the name of one category, or null"
        )
    for value in row.get("helpfulness") or ():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            yield Problem(number, "helpfulness", f"{value!r} is not a number", "give every answer a finite score")
    if "responses" in row and len(row["responses"]) > 1 and row["helpfulness"] is None:
        yield Problem(number, "helpfulness", "it is missing", "score the answers, the more helpful the higher")


def is_unknown(row: Row) -> bool:
    """Whether the safety of any answer in a row is unknown."""
    return any(flag is None for flag in flags_of(row))


def flags_of(row: Row) -> list[Any]:
    """The safety flags of a row's answers."""
    return [row["chosen_is_safe"], row["rejected_is_safe"]] if "chosen" in row else row["is_safe"]


def _answers(row: Row) -> list[tuple[str, Any]]:
    if "chosen" in row:
        return [("chosen", row["chosen"]), ("rejected", row["rejected"])]
    return [("responses", response) for response in row["responses"]]


def _probabilities(row: Row) -> list[tuple[str, Any]]:
    if "chosen" in row:
        names = ("chosen_is_safe", "rejected_is_safe", "chosen_is_better", "chosen_is_safer")
        return [(name, row[name]) for name in names]
    return [("is_safe", value) for value in row["is_safe"]]


def _is_probability(value: Any) -> bool:
    return isinstance(value, bool | int | float) and 0 <= value <= 1


def _text_problem(text: Any) -> str | None:
    if text is None:
        return "it is null"
    if isinstance(text, str):
        return None if text.strip() else "it is empty"
    if not isinstance(text, list):
        return f"it is a {type(text).__name__}"
    if not text:
        return "it has no message"
    for message in text:
        if not (isinstance(message, dict) and isinstance(message.get("role"), str)):
            return "a message has no role"
        if not (isinstance(message.get("content"), str) and message["content"].strip()):
            return "a message has no content"
    return None
