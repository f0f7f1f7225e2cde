"""The known shapes of preference sets, and converters of their rows to canonical rows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from bfpo.preferences.reading import Row
from bfpo.preferences.schema import Problem

Complain = Callable[[str | None, str, str], None]
Convert = Callable[[Row, Complain], Row | None]


@dataclass(frozen=True)
class Shape:
    """A schema that preference sets come in.

    Attributes:
        name: name in messages.
        required: columns that identify the shape.
        optional: further columns that are read.
        known: columns of the public set that are ignored.
        kind: kind of canonical rows.
        convert: converter of one row; it returns None after a complaint, or without one to drop a useless row that the
            public set is known to have (such rows are counted).
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
    """Register a shape by its converter; the first registered shape that fits a source is used."""

    def register(convert: Convert) -> Convert:
        SHAPES.append(Shape(name, required, optional, known, kind, convert))
        return convert

    return register


def detect(columns: Collection[str]) -> tuple[Shape | None, list[Problem]]:
    """The shape that has these columns, if any, and problems of columns that look mistyped."""
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
        what = f"the columns {', '.join(sorted(columns)) or '(none)'} have no known shape"
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
    ("safer_response_id", "response_0_harm_category", "response_1_harm_category"),
    tuple(
        f"{part}response_{number}_{suffix}"
        for number in (0, 1)
        for part, suffix in (("", "source"), ("", "severity_level"), ("", "sha256"))
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
        "category": _only_harm(row),
    }


def _only_harm(row: Row) -> str | None:
    """The harm category of a pair's answers, if exactly one is marked."""
    marked = set()
    for number in (0, 1):
        kinds = row.get(f"response_{number}_harm_category")
        marked |= {name for name, is_marked in kinds.items() if is_marked} if isinstance(kinds, dict) else set()
    return marked.pop() if len(marked) == 1 else None


def _is_id(value: Any) -> bool:
    return not isinstance(value, bool) and value in (0, 1)


@shape(
    "pairs (ours, TRL's, UltraFeedback-binarized, HH-RLHF)",
    "pairs",
    ("chosen", "rejected"),
    ("prompt", "chosen_is_safe", "rejected_is_safe", "chosen_is_better", "chosen_is_safer", "category"),
    ("prompt_id", "messages", "score_chosen", "score_rejected"),
)
def _pairs(row: Row, complain: Complain) -> Row | None:
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    if prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
        # HH-RLHF has whole dialogues without a prompt; a few have an empty turn or two equal dialogues.
        first, second = _turns(chosen), _turns(rejected)
        if first and second:
            if first == second or not all(turn["content"] for turn in first + second):
                return None
            chosen, rejected = first, second
    if isinstance(chosen, list) and isinstance(rejected, list):
        both = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
        shared: list[Any] = [message for message, _ in both]
        while shared and prompt is None and not (isinstance(shared[-1], dict) and shared[-1].get("role") == "user"):
            shared.pop()
        if shared and len(shared) < min(len(chosen), len(rejected)):
            # Conversations repeat the prompt before each answer.
            prompt, chosen, rejected = shared, chosen[len(shared) :], rejected[len(shared) :]
        elif isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
    if prompt is None:
        complain("prompt", "it is missing", "add a column 'prompt'; where it ends can't be guessed reliably")
        return None
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_is_safe": row.get("chosen_is_safe"),
        "rejected_is_safe": row.get("rejected_is_safe"),
        "chosen_is_better": row.get("chosen_is_better", 1.0),
        "chosen_is_safer": row.get("chosen_is_safer"),
        "category": row.get("category"),
    }


_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def _turns(dialogue: str) -> list[dict[str, str]] | None:
    """A transcript of HH-RLHF ("\\n\\nHuman: ...\\n\\nAssistant: ...") as messages; None for other texts."""
    before, *parts = _SPEAKER.split(dialogue)
    if before or not parts:
        return None
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _SPEAKERS[speaker], "content": text.strip()} for speaker, text in turns]


@shape("K answers", "groups", ("prompt", "responses"), ("helpfulness", "is_safe", "category"))
def _groups(row: Row, complain: Complain) -> Row | None:
    responses = row.get("responses")
    if not isinstance(responses, list) or not responses:
        complain("responses", "it is not a list of answers", "write a list with at least one answer")
        return None
    for column in ("helpfulness", "is_safe"):
        values = row.get(column)
        if values is not None and (not isinstance(values, list) or len(values) != len(responses)):
            complain(
                column, f"it is not a list of {len(responses)} values, one for each answer", "give every answer a value"
            )
            return None
    return {
        "prompt": row.get("prompt"),
        "responses": responses,
        "helpfulness": row.get("helpfulness"),
        "is_safe": row.get("is_safe") or [None] * len(responses),
        "category": row.get("category"),
    }


@shape(
    "UltraFeedback",
    "groups",
    ("instruction", "completions"),
    (),
    ("source", "models", "correct_answers", "incorrect_answers"),
)
def _ultrafeedback(row: Row, complain: Complain) -> Row | None:
    """Answers ordered by ``overall_score``, as in UltraFeedback-binarized.

    Its ``create_dataset.py`` (HuggingFaceH4/ultrafeedback_binarized, commit 6221885) sorts ``completions`` by that
    field, at a revision of openbmb/UltraFeedback that corrects scores of 10 that meant 1.
    """
    completions = row.get("completions")
    if not isinstance(completions, list) or not all(isinstance(one, dict) for one in completions) or not completions:
        complain("completions", "it is not a list of answers", "write objects with 'response' and 'overall_score'")
        return None
    for field in ("response", "overall_score"):
        if any(one.get(field) is None for one in completions):
            complain("completions", f"an answer has no {field!r}", f"give every answer its {field!r}, or remove it")
            return None
    return {
        "prompt": row.get("instruction"),
        "responses": [one["response"] for one in completions],
        "helpfulness": [one["overall_score"] for one in completions],
        "is_safe": [None] * len(completions),
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
        complain("messages", "it does not end with an assistant's turn", "end it with the answer to train on")
        return None
    return _single(messages[:-1], messages[-1:])
