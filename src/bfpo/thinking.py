"""Separation of a model's thinking from its answer, for everything that reads a model's output."""

from __future__ import annotations

import re

# DeepSeek-R1, Qwen3 and most others write <think>; Magistral [THINK]; Seed-OSS <seed:think>.
_NAMES = "think|thinking|seed:think"
_OPENING = re.compile(rf"\s*(?:<({_NAMES})>|\[(THINK)\])")
# Some chat templates end with the opening mark, so that the output holds the closing one alone.
_CLOSING = re.compile(rf"</(?:{_NAMES})>|\[/THINK\]")
_OPENED = re.compile(rf"(?:<(?:{_NAMES})>|\[THINK\])\s*\Z")

# Tokens at a prompt's end in which to look for an opening mark; one that is not a token of its own is a few.
PROMPT_TAIL = 16


def is_thinking_mark(token: str) -> bool:
    """Whether a token is a mark at which thinking begins or ends."""
    return bool(_OPENING.fullmatch(token) or _CLOSING.fullmatch(token))


def split_thinking(text: str, before: str | None = "") -> tuple[str, str]:
    """The thinking at the beginning of an output and the answer after it, without surrounding white space.

    Thinking that never ends is all thinking. Marks after the beginning of the answer are part of the answer: a closing
    one alone must not hide from judges what a model wrote before it.

    Args:
        text: the output.
        before: the end of the prompt; after an opening mark there, the output begins with thinking. None if it isn't
            known, as behind a server: a closing mark then tells that thinking was opened.

    Returns:
        (thinking, answer); thinking is "" if there is none.
    """
    opened = _OPENED.search(before or "")
    if opened and not _CLOSING.search(text):
        text = opened[0] + text
    thoughts: list[str] = []
    at = 0
    while opening := _OPENING.match(text, at):
        mark = f"</{opening[1]}>" if opening[1] else f"[/{opening[2]}]"
        end = text.find(mark, opening.end())
        thoughts.append(text[opening.end() : len(text) if end < 0 else end].strip())
        at = len(text) if end < 0 else end + len(mark)
    if not thoughts and (opened or before is None) and (closing := _CLOSING.search(text)):
        thoughts, at = [text[: closing.start()].strip()], closing.end()
    return "\n\n".join(filter(None, thoughts)), text[at:].strip() if thoughts else text
