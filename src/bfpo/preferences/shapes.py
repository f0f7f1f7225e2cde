"""The known shapes of preference sets: their columns, and what else is told apart from a column to ignore."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from bfpo.preferences import attack_formats, group_formats, pair_formats
from bfpo.preferences.prompts import CONTEXT_COLUMNS, PROMPT_COLUMNS
from bfpo.preferences.reading import Row
from bfpo.preferences.schema import HARM_COLUMNS, OPTIONAL_COLUMNS, REWARD_COLUMNS, TRUNCATED_COLUMNS, Problem


@dataclass(frozen=True)
class Shape:
    """A schema that preference sets come in.

    Attributes:
        name: name in messages.
        kind: kind of canonical rows.
        convert: converter of one row, which raises `RowError` if it can't be read, and `LeftOutError` if it is useless.
            What it leaves out of a row it lists, by reason, under ``left_out``.
        required: columns that identify the shape.
        optional: further columns that are read.
        known: columns of the public set that are ignored, although other shapes read columns of that name.
        by_prompt: whether rows with the same prompt become one group, and their flags are a judge's.
    """

    name: str
    kind: Literal["pairs", "groups"]
    convert: Callable[[Row], Row]
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    by_prompt: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read."""
        return self.required + self.optional


_FLAGS = (
    *("chosen_is_safe", "rejected_is_safe", "chosen_is_better", "chosen_is_safer"),
    *HARM_COLUMNS["pairs"],
    "category",
    *REWARD_COLUMNS["pairs"],
    *TRUNCATED_COLUMNS["pairs"],
)
_PROMPT = (*PROMPT_COLUMNS, *CONTEXT_COLUMNS, *OPTIONAL_COLUMNS)

# PKU-SafeRLHF's columns with the harm of its answers.
HARM_SOURCES = tuple(f"response_{number}_{what}" for number in (0, 1) for what in ("harm_category", "severity_level"))

# The first shape whose columns a source has is used.
SHAPES = (
    Shape(
        "garak report",
        "groups",
        attack_formats.garak_attempt,
        ("entry_type", "prompt", "outputs"),
        ("detector_results", "eval_threshold", "conversations", "intent", "category"),
        ("messages",),
        by_prompt=True,
    ),
    Shape(
        "JailbreakBench artifact",
        "groups",
        attack_formats.jailbreak,
        ("goal", "prompt", "response", "jailbroken"),
        ("category",),
        by_prompt=True,
    ),
    Shape(
        "PKU-SafeRLHF",
        "pairs",
        pair_formats.pku_saferlhf,
        ("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe", "better_response_id"),
        ("safer_response_id", *HARM_SOURCES, "weight"),
        tuple(f"response_{number}_{what}" for number in (0, 1) for what in ("source", "sha256")),
    ),
    Shape(
        "OpenAI preference",
        "pairs",
        pair_formats.openai_preference,
        ("input", "preferred_output", "non_preferred_output"),
        (*_FLAGS, "weight"),
    ),
    Shape(
        "Argilla",
        "pairs",
        pair_formats.argilla,
        ("chosen_response", "rejected_response"),
        (*_FLAGS, *_PROMPT),
    ),
    Shape(
        "ms-swift, two conversations",
        "pairs",
        pair_formats.rejected_messages,
        ("messages", "rejected_messages"),
        (*_FLAGS, *_PROMPT),
    ),
    Shape(
        "ms-swift",
        "pairs",
        pair_formats.rejected_response,
        ("rejected_response",),
        (*_FLAGS, *_PROMPT, "response", "output"),
    ),
    Shape(
        "pairs (ours, TRL's, UltraFeedback-binarized, HH-RLHF)",
        "pairs",
        pair_formats.pairs,
        ("chosen", "rejected"),
        (*_FLAGS, *_PROMPT),
        ("prompt_id", "score_chosen", "score_rejected"),
    ),
    Shape(
        "K answers",
        "groups",
        group_formats.k_answers,
        ("prompt", "responses"),
        ("helpfulness", "is_safe", "harm", "category", "reward", "truncated", *CONTEXT_COLUMNS, *OPTIONAL_COLUMNS),
    ),
    Shape(
        "UltraFeedback",
        "groups",
        group_formats.ultrafeedback,
        ("instruction", "completions"),
        ("weight",),
        ("source", "models", "correct_answers", "incorrect_answers"),
    ),
    Shape("distilabel", "groups", group_formats.distilabel, ("generations", "ratings"), _PROMPT),
    Shape(
        "prompt and completion (SFT)",
        "groups",
        group_formats.completion,
        ("prompt", "completion"),
        (*CONTEXT_COLUMNS, *OPTIONAL_COLUMNS),
    ),
    Shape("conversation (SFT)", "groups", group_formats.conversation, ("messages",), _PROMPT, ("prompt_id",)),
    Shape("conversation (SFT)", "groups", group_formats.conversation, ("conversations",), _PROMPT),
    Shape("conversation (SFT)", "groups", group_formats.conversation, ("conversation",), _PROMPT),
    Shape("Alpaca (SFT)", "groups", group_formats.response, ("instruction", "output"), _PROMPT),
    Shape("response (SFT)", "groups", group_formats.response, ("response",), (*_PROMPT, "is_safe", "category")),
)

_IGNORED = "it says something in other formats that would be ignored here"
_ONLY_TEXT = "only text is read"
_KTO = "answers marked one by one as good or bad are not read"
# Columns that are never just ignored, with the reason.
_MEANINGFUL = {
    **dict.fromkeys((*PROMPT_COLUMNS, *CONTEXT_COLUMNS, *OPTIONAL_COLUMNS, "context", "functions"), _IGNORED),
    **dict.fromkeys((name for name in _FLAGS if name != "category"), _IGNORED),
    **dict.fromkeys(("completion", "rejected_response", "rejected_messages", "rejected_tools"), _IGNORED),
    **dict.fromkeys(
        ("chosen", "rejected", "helpfulness", "is_safe", "harm", "reward", "truncated", "chat_template_kwargs"),
        _IGNORED,
    ),
    **dict.fromkeys(("image", "images", "video", "videos", "audio", "audios", "rejected_images"), _ONLY_TEXT),
    **dict.fromkeys(("label", "kto_tag"), _KTO),
}


# Columns of files that are never a set, with the reason and a remedy.
_REFUSED = (
    (
        {"attempt_id", "attempt_idx", "detector", "output"},
        "this is garak's hit log, which lacks the answers that passed",
        "name the report beside it (.report.jsonl)",
    ),
)


def detect(used: Collection[str], columns: Collection[str]) -> tuple[Shape | None, list[Problem]]:
    """The shape of a source, if any, and problems of its columns.

    Args:
        used: columns that hold anything in any row.
        columns: all columns.

    Returns:
        The shape, and problems of columns that look mistyped or would have been ignored with what they say.
    """
    of_columns = (
        next((shape for shape in SHAPES if set(shape.required) <= set(some)), None) for some in (used, columns)
    )
    found = next((shape for shape in of_columns if shape), None)
    candidates = [found] if found else SHAPES
    readable = {column for shape in candidates for column in shape.columns}
    problems = []
    for column in columns:
        if column in readable or any(column in shape.known for shape in candidates):
            continue
        leave_out = f"leave it out with columns={{{column!r}: ''}} (--column {column}=)"
        if found and column in _MEANINGFUL:
            if column in used:
                problems.append(Problem(None, column, _MEANINGFUL[column], leave_out))
        elif close := _mistyped(column, readable - set(columns)):
            remedy = f"rename it, or load with columns={{{column!r}: {close!r}}} (--column {column}={close})"
            problems.append(Problem(None, column, f"it looks like {close!r} mistyped", remedy))
    if found is None:
        refused = [Problem(None, None, what, remedy) for own, what, remedy in _REFUSED if own <= set(columns)]
        problems = refused or problems
    if found is None and not problems:
        what = f"the columns {', '.join(sorted(columns)) or '(none)'} have no known shape"
        remedy = "rename them, e.g. to prompt, chosen and rejected (--column); docs/how-to/data.md lists all shapes"
        problems.append(Problem(None, None, what, remedy))
    return found, problems


def _mistyped(column: str, readable: Collection[str]) -> str | None:
    """The column that another one was meant to be; names such as conversation_id are not mistakes."""
    close = difflib.get_close_matches(column, readable, n=1, cutoff=0.85)
    return close[0] if close and not column.startswith(f"{close[0].rstrip('s')}_") else None
