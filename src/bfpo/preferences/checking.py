"""Checks of canonical rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from bfpo.preferences.answers import PAIR, answers_of, flag_columns, flags_of, is_pair
from bfpo.preferences.harm import harms_of
from bfpo.preferences.reading import Row
from bfpo.preferences.schema import REWARD_COLUMNS, TRUNCATED_COLUMNS, LeftOutError, Problem, as_list

FLAG_REMEDY = "write true, false, a probability in [0, 1], or null where it is unknown"
_ORDER_REMEDY = "or set unknown_order to 'drop' or 0.5"


def row_problems(number: int, row: Row, order_may_be_open: bool = False) -> Iterator[Problem]:
    """Every problem of one canonical row, whose ``tools``, ``weight`` and rewards are optional.

    With ``order_may_be_open``, the order of the answers may be null.
    """
    columns = PAIR if is_pair(row) else ["responses"] * len(row["responses"])
    answers = list(zip(columns, answers_of(row), strict=True))
    for column, text in [("prompt", row["prompt"]), *answers]:
        what = _text_problem(text)
        if what:
            yield Problem(number, column, what, "write a string, or a list of {role, content} messages")
        elif column != "prompt" and isinstance(text, list) and all(turn["role"] != "assistant" for turn in text):
            yield Problem(number, column, "no message is the assistant's", "give the answer the role 'assistant'")
    if any(isinstance(text, list) != isinstance(row["prompt"], list) for _, text in answers):
        what = "prompt and answers have different types"
        yield Problem(number, None, what, "write all as strings or all as messages")
    for column, value in _probabilities(row):
        if value is not None and not _is_probability(value):
            yield Problem(number, column, f"{shown(value)} is not a probability", FLAG_REMEDY)
    yield from _contradictions(number, row)
    if is_unordered(row) and not order_may_be_open:
        if is_pair(row):
            remedy = f"write a probability, leave the column out, {_ORDER_REMEDY}"
            yield Problem(number, "chosen_is_better", "it is null", remedy)
        else:
            remedy = f"score the answers, the more helpful the higher, {_ORDER_REMEDY}"
            yield Problem(number, "helpfulness", "it is missing", remedy)
    for value in row.get("helpfulness") or ():
        if not _is_finite(value):
            yield Problem(number, "helpfulness", f"{shown(value)} is not a number", "give every answer a finite score")
    yield from _other_problems(number, row)


def leave_out_useless(row: Row) -> None:
    """Leave out canonical rows that give no training signal, which public sets have and nobody can remove there.

    Raises:
        LeftOutError: if all answers are empty, or of a pair one is, or both are identical.
    """
    answers = answers_of(row)
    empty = [_is_empty(answer) for answer in answers]
    if is_pair(row) and any(empty):
        raise LeftOutError("pairs with an empty answer")
    if empty and all(empty):
        raise LeftOutError("rows with an empty answer")
    if is_pair(row) and repr(answers[0]) == repr(answers[1]):
        raise LeftOutError("pairs of two identical answers")


def _is_empty(answer: Any) -> bool:
    """Whether an answer is a blank text, or messages of the assistant without text or calls; null is a problem."""
    if isinstance(answer, str):
        return not answer.strip()
    return isinstance(answer, list) and all(
        isinstance(turn, dict)
        and turn.get("role") == "assistant"
        and not str(turn.get("content") or "").strip()
        and set(turn) <= {"role", "content"}
        for turn in answer
    )


def _contradictions(number: int, row: Row) -> Iterator[Problem]:
    """Flags that the harm of their answer contradicts; a probability contradicts none."""
    for column, flag, harm in zip(flag_columns(row), flags_of(row), harms_of(row), strict=True):
        if harm is not None and flag in (0, 1) and (flag == 1) != (harm == "{}"):
            what = f"the answer is called {'safe' if flag else 'unsafe'}, and its harm is {harm}"
            of_harm = column.replace("is_safe", "harm")
            leave_out = f"leave out {of_harm!r} (--column {of_harm}=)"
            remedy = f"an answer is safe if and only if all levels are 0: correct one of the two, or {leave_out}"
            yield Problem(number, column, what, remedy)


def _other_problems(number: int, row: Row) -> Iterator[Problem]:
    categories = row.get("category")
    if categories is not None and not all(isinstance(name, str) for name in as_list(categories)):
        remedy = "write the name of a category, a list of names, or null"
        yield Problem(number, "category", f"{shown(categories)} is not a category", remedy)
    yield from _reward_problems(number, row)
    yield from _truncated_problems(number, row)
    weight = row.get("weight", 1.0)
    if not (_is_finite(weight) and weight >= 0):
        yield Problem(number, "weight", f"{shown(weight)} is not a weight", "write a finite number, at least 0")


def _reward_problems(number: int, row: Row) -> Iterator[Problem]:
    given = {name: row[name] for name in (*REWARD_COLUMNS["pairs"], *REWARD_COLUMNS["groups"]) if name in row}
    remedy = "give every answer a finite number, or leave the column out"
    if is_pair(row) and len(given) == 1:
        yield Problem(number, next(iter(given)), "only one of the two answers has a reward", remedy)
    for name, values in given.items():
        expected = 1 if is_pair(row) else len(row["responses"])
        listed = values if isinstance(values, list) and not is_pair(row) else [values]
        if len(listed) != expected or not all(map(_is_finite, listed)):
            yield Problem(number, name, f"{shown(values)} does not give one reward per answer", remedy)


def _truncated_problems(number: int, row: Row) -> Iterator[Problem]:
    for name in (*TRUNCATED_COLUMNS["pairs"], *TRUNCATED_COLUMNS["groups"]):
        value = row.get(name)
        if value is None:
            continue
        flags = value if name in TRUNCATED_COLUMNS["groups"] else [value]
        expected = 1 if is_pair(row) else len(row["responses"])
        if not isinstance(flags, list) or len(flags) != expected or any(flag not in (0, 1, None) for flag in flags):
            remedy = "write true for an answer that was cut at a limit, else false, or leave the column out"
            yield Problem(number, name, f"{shown(value)} does not say of each answer whether it was cut", remedy)


def shown(value: Any) -> str:
    """A value for a message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_unordered(row: Row) -> bool:
    """Whether it is unknown which of a row's answers is the more helpful one."""
    if is_pair(row):
        return row["chosen_is_better"] is None
    return len(row["responses"]) > 1 and row["helpfulness"] is None


def is_unknown(row: Row) -> bool:
    """Whether the safety of any answer in a row is unknown."""
    return any(flag is None for flag in flags_of(row))


def _probabilities(row: Row) -> list[tuple[str, Any]]:
    orders = ("chosen_is_better", "chosen_is_safer") if is_pair(row) else ()
    return [*zip(flag_columns(row), flags_of(row), strict=True), *((name, row[name]) for name in orders)]


def _is_probability(value: Any) -> bool:
    return isinstance(value, bool | int | float) and 0 <= value <= 1


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            return "it has a message without role and content"
        content = message["content"]
        if content is not None and not isinstance(content, str):
            return f"the content of a message is a {type(content).__name__}"
        # A call needs no text, and a tool may return nothing.
        if not (content and content.strip()) and message["role"] != "tool" and not message.get("tool_calls"):
            return "a message has no content"
    return None
