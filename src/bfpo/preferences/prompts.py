"""The prompt of a row, from whichever columns its format has it in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bfpo.preferences.messages import Message, messages_of, text_of, with_role
from bfpo.preferences.reading import Row
from bfpo.preferences.schema import RowError

# Columns with a prompt, the first that a row has is taken. "conversation" is ms-swift's.
PROMPT_COLUMNS = ("prompt", "instruction", "question", "query", "input", "messages", "conversations", "conversation")
# Columns with what comes before it.
SYSTEM_COLUMNS = ("system", "system_prompt")
CONTEXT_COLUMNS = (*SYSTEM_COLUMNS, "history")


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing: null, white space, or an empty list or object."""
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], {})


def prompt_of(row: Row) -> tuple[Any, Row]:
    """The prompt (a string, messages or None), and the row's other columns that could be one.

    LLaMA-Factory's and ms-swift's ``input`` follows ``instruction`` after a line break.
    """
    found = {name: row[name] for name in PROMPT_COLUMNS if not is_blank(row.get(name))}
    if not found:
        return row.get("prompt"), {}
    first = next(iter(found))
    if first == "instruction" and all(isinstance(found.get(name), str) for name in ("instruction", "input")):
        found["instruction"] = f"{found['instruction']}\n{found.pop('input')}"
    return text_of(found.pop(first), first), found


def check_repeats(others: Row, texts: list[Any]) -> None:
    """Refuse a column that could be the prompt, unless it repeats a part of the row's prompt and answers.

    Raises:
        RowError: if its text would be lost.
    """
    known = {words for text in texts for words in _contents(text)}
    for column, value in others.items():
        if not known.issuperset(_contents(text_of(value, column))):
            what = "it is neither the prompt nor a part of it"
            raise RowError(column, what, f"leave it out with columns={{{column!r}: ''}} (--column {column}=)")


def _contents(text: Any) -> list[str]:
    """The words of a string or of every message."""
    messages = with_role(text, "user")
    return [_words(message["content"]) for message in messages] if isinstance(messages, list) else []


def _words(content: Any) -> str:
    return " ".join(content.split()) if isinstance(content, str) else ""


def needs_messages(row: Row) -> bool:
    """Whether the source has a system prompt or history in columns of its own, so that all its rows are messages."""
    return any(name in row for name in CONTEXT_COLUMNS)


def with_context(prompt: list[Message], row: Row) -> list[Message]:
    """Messages after the row's system prompt and history.

    Raises:
        RowError: if the messages already have another system prompt, or the history can't be read.
    """
    has_system = bool(prompt) and prompt[0]["role"] in ("system", "developer")
    system, rest = (prompt[:1], prompt[1:]) if has_system else ([], prompt)
    for column in SYSTEM_COLUMNS:
        text = row.get(column)
        if is_blank(text):
            continue
        if not isinstance(text, str):
            raise RowError(column, f"it is a {type(text).__name__}", "write the system prompt as a string")
        if system and _words(system[0]["content"]) != _words(text):
            raise RowError(column, "it differs from the system message of the prompt", "keep one of them")
        system = system or [{"role": "system", "content": text}]
    return [*system, *_history(row.get("history")), *rest]


def with_system_prompt(row: Row, system_prompt: str) -> Row:
    """A canonical row as messages after a system prompt, unless its prompt has one."""
    prompt = with_role(row["prompt"], "user")
    if prompt[0]["role"] not in ("system", "developer"):
        prompt = [{"role": "system", "content": system_prompt}, *prompt]
    answers = {name: with_role(row[name], "assistant") for name in ("chosen", "rejected") if name in row}
    if "responses" in row:
        answers["responses"] = [with_role(answer, "assistant") for answer in row["responses"]]
    return row | {"prompt": prompt} | answers


def _history(history: Any) -> list[Message]:
    """Messages of [question, answer] pairs, or a list of messages."""
    if is_blank(history):
        return []
    if isinstance(history, list) and all(isinstance(turn, Mapping) for turn in history):
        return messages_of(history, "history")
    if not isinstance(history, list) or not all(
        isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn) for turn in history
    ):
        raise RowError("history", "it is not a list of [question, answer] pairs", "write it as such a list")
    return [
        {"role": role, "content": text}
        for turn in history
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
