"""The shapes that preferences come in, and how a row of each becomes one of ours."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

from bfpo.preferences.reading import Row
from bfpo.preferences.schema import Problem

Complain = Callable[[str | None, str, str], None]
Convert = Callable[[Row, Complain], Row | None]


@dataclass(frozen=True)
class Shape:
    """One way to write preferences down.

    Attributes:
        name: what messages call it.
        required: columns that tell it from the others.
        optional: further columns that are read.
        known: columns of the public set that are not read.
        kind: what its rows become.
        convert: makes a canonical row of one of its rows, or complains and returns None.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    known: tuple[str, ...]
    kind: Literal["pairs", "groups"]
    convert: Convert


SHAPES: list[Shape] = []


def shape(
    name: str,
    kind: Literal["pairs", "groups"],
    required: tuple[str, ...],
    optional: tuple[str, ...] = (),
    known: tuple[str, ...] = (),
) -> Callable[[Convert], Convert]:
    """Register a shape by its converter; of several that fit, the one registered first is taken."""

    def register(convert: Convert) -> Convert:
        SHAPES.append(Shape(name, required, optional, known, kind, convert))
        return convert

    return register


def detect(columns: Collection[str]) -> tuple[Shape | None, list[Problem]]:
    """The shape that has these columns, and columns that look mistyped."""
    found = next((shape for shape in SHAPES if set(shape.required) <= set(columns)), None)
    candidates = [found] if found else SHAPES
    readable = {column for shape in candidates for column in shape.required + shape.optional}
    problems = []
    for column in columns:
        if column in readable or any(column in shape.known for shape in candidates):
            continue
        close = difflib.get_close_matches(column, readable - set(columns), n=1, cutoff=0.85)
        if close:
            remedy = f"rename it, or load with columns={{{column!r}: {close[0]!r}}} (--column {column}={close[0]})"
            problems.append(Problem(None, column, f"it looks like {close[0]!r} mistyped", remedy))
    if found is None and not problems:
        shapes = "; ".join(f"{shape.name}: {', '.join(shape.required)}" for shape in SHAPES)
        what = f"the columns {', '.join(sorted(columns)) or '(none)'} are of no known shape"
        problems.append(Problem(None, None, what, f"rename them to one of these ({shapes})"))
    return found, problems


@shape(
    "PKU-SafeRLHF",
    "pairs",
    (
        "prompt",
        "response_0",
        "response_1",
        "is_response_0_safe",
        "is_response_1_safe",
        "better_response_id",
    ),
    ("safer_response_id",),
    tuple(
        f"{part}response_{number}_{suffix}"
        for number in (0, 1)
        for part, suffix in (("", "source"), ("", "harm_category"), ("", "severity_level"), ("", "sha256"))
    ),
)
def _pku(row: Row, complain: Complain) -> Row | None:
    better: Any = row.get("better_response_id")
    safer: Any = row.get("safer_response_id")
    if not _is_id(better):
        complain("better_response_id", f"it is {better!r}, not 0 or 1", "name the more helpful response")
        return None
    if safer is not None and not _is_id(safer):
        complain("safer_response_id", f"it is {safer!r}, not 0, 1 or null", "name the safer response")
        return None
    flags = [row.get("is_response_0_safe"), row.get("is_response_1_safe")]
    if safer is not None and not flags[int(safer)] and flags[1 - int(safer)] is True:
        complain(
            "safer_response_id",
            f"response {int(safer)} is called the safer although it is unsafe and the other is safe",
            "correct the flags or the id",
        )
        return None
    chosen, rejected = int(better), 1 - int(better)
    return {
        "prompt": row.get("prompt"),
        "chosen": row.get(f"response_{chosen}"),
        "rejected": row.get(f"response_{rejected}"),
        "chosen_is_safe": flags[chosen],
        "rejected_is_safe": flags[rejected],
        "chosen_is_better": 1.0,
        "chosen_is_safer": None if safer is None else float(int(safer) == chosen),
    }


def _is_id(value: Any) -> bool:
    return value in (0, 1) and not isinstance(value, bool)


@shape(
    "pairs (ours, TRL's, UltraFeedback-binarized)",
    "pairs",
    ("chosen", "rejected"),
    ("prompt", "chosen_is_safe", "rejected_is_safe", "chosen_is_better", "chosen_is_safer"),
    ("prompt_id", "messages", "score_chosen", "score_rejected"),
)
def _pairs(row: Row, complain: Complain) -> Row | None:
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    if isinstance(chosen, list) and isinstance(rejected, list):
        shared = _common_prefix(chosen, rejected)
        if shared and len(shared) < min(len(chosen), len(rejected)):
            # Conversations repeat the prompt before each answer.
            prompt, chosen, rejected = shared, chosen[len(shared) :], rejected[len(shared) :]
        elif isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
    if prompt is None:
        complain("prompt", "it is missing", "add a column 'prompt': guessing where it ends would be wrong now and then")
        return None
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_is_safe": row.get("chosen_is_safe"),
        "rejected_is_safe": row.get("rejected_is_safe"),
        "chosen_is_better": row.get("chosen_is_better", 1.0),
        "chosen_is_safer": row.get("chosen_is_safer"),
    }


def _common_prefix(first: list[Any], second: list[Any]) -> list[Any]:
    length = 0
    while length < min(len(first), len(second)) and first[length] == second[length]:
        length += 1
    return first[:length]


@shape("K answers", "groups", ("prompt", "responses"), ("helpfulness", "is_safe"))
def _groups(row: Row, complain: Complain) -> Row | None:
    responses = row.get("responses")
    if not isinstance(responses, list) or not responses:
        complain("responses", "it is not a list of answers", "write a list with at least one answer")
        return None
    for column in ("helpfulness", "is_safe"):
        values = row.get(column)
        if values is not None and (not isinstance(values, list) or len(values) != len(responses)):
            complain(column, f"it is not a list of {len(responses)}, one for each answer", "give every answer a value")
            return None
    return {
        "prompt": row.get("prompt"),
        "responses": responses,
        "helpfulness": row.get("helpfulness"),
        "is_safe": row.get("is_safe") or [None] * len(responses),
    }


def _single(prompt: Any, answer: Any) -> Row:
    return {"prompt": prompt, "responses": [answer], "helpfulness": None, "is_safe": [None]}


@shape("prompt and completion (SFT)", "groups", ("prompt", "completion"))
def _completion(row: Row, complain: Complain) -> Row | None:
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(completion, list) and isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    return _single(prompt, completion)


@shape("conversation (SFT)", "groups", ("messages",), (), ("prompt", "prompt_id"))
def _conversation(row: Row, complain: Complain) -> Row | None:
    messages: Any = row.get("messages")
    last = messages[-1] if isinstance(messages, list) and len(messages) > 1 else None
    if not isinstance(last, dict) or last.get("role") != "assistant":
        complain("messages", "it does not end in an assistant's turn", "end it with the answer to train on")
        return None
    return _single(messages[:-1], messages[-1:])
