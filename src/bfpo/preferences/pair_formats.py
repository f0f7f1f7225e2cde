"""Converters of pairs: TRL, LLaMA-Factory, ms-swift, axolotl, OpenAI, Argilla, HH-RLHF and PKU-SafeRLHF."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Any

from bfpo.preferences.harm import harm_text, severity_harm, with_harm
from bfpo.preferences.messages import Message, messages_of, text_of, tools_of, with_role
from bfpo.preferences.prompts import check_repeats, is_blank, needs_messages, prompt_of, with_context
from bfpo.preferences.reading import Row
from bfpo.preferences.schema import LeftOutError, RowError


def pku_saferlhf(row: Row) -> Row:
    """Answers in PKU-SafeRLHF's own columns; without ``better_response_id`` the order is unknown."""
    better: Any = row.get("better_response_id")
    safer: Any = row.get("safer_response_id")
    for column, value in (("better_response_id", better), ("safer_response_id", safer)):
        if value is not None and (isinstance(value, bool) or value not in (0, 1)):
            remedy = f"write null or name the {column.split('_')[0]} response"
            raise RowError(column, f"it is {value!r}, not 0 or 1", remedy)
    flags = [row.get("is_response_0_safe"), row.get("is_response_1_safe")]
    if safer is not None and not flags[int(safer)] and flags[1 - int(safer)] is True:
        what = f"response {int(safer)} is called the safer although it is unsafe and the other is safe"
        raise RowError("safer_response_id", what, "correct the flags or the id")
    chosen = int(better or 0)
    made = {
        "prompt": row.get("prompt"),
        "chosen": row.get(f"response_{chosen}"),
        "rejected": row.get(f"response_{1 - chosen}"),
        "chosen_is_safe": flags[chosen],
        "rejected_is_safe": flags[1 - chosen],
        "chosen_is_better": None if better is None else 1.0,
        "chosen_is_safer": None if safer is None else float(int(safer) == chosen),
        "category": _only_harm(row),
    }
    for number, answer in ((chosen, "chosen"), (1 - chosen, "rejected")):
        made = with_harm(made, severity_harm(row, number), answer)
    return made


def _only_harm(row: Row) -> str | None:
    """The harm category of a pair's answers, if exactly one is marked."""
    marked = set()
    for number in (0, 1):
        kinds = row.get(f"response_{number}_harm_category")
        marked |= {name for name, is_marked in kinds.items() if is_marked} if isinstance(kinds, dict) else set()
    return marked.pop() if len(marked) == 1 else None


def pairs(row: Row) -> Row:
    """``chosen`` and ``rejected`` as strings, a message or messages, with a prompt of their own or in common."""
    return _pair(row, row.get("chosen"), row.get("rejected"))


def argilla(row: Row) -> Row:
    """``instruction``, ``chosen_response`` and ``rejected_response``, as in Argilla's sets and axolotl."""
    return _pair(row, row.get("chosen_response"), row.get("rejected_response"))


def rejected_response(row: Row) -> Row:
    """ms-swift's rows: ``messages`` (or query and response) and the answer that would have been worse."""
    rejected = row.get("rejected_response")
    if row.get("messages") is None:
        chosen = next((row[name] for name in ("response", "output") if row.get(name) is not None), None)
        return _pair(row, chosen, rejected)
    messages = messages_of(row["messages"], "messages")
    before = messages[:-1] if isinstance(rejected, str) else messages[: _after_last_question(messages)]
    worse = with_role(text_of(rejected, "rejected_response"), "assistant")
    rest = {name: value for name, value in row.items() if name != "messages"}
    return _pair(rest, messages, [*before, *worse] if isinstance(worse, list) else worse)


def rejected_messages(row: Row) -> Row:
    """ms-swift's rows with two whole conversations."""
    rest = {name: value for name, value in row.items() if name != "messages"}
    return _pair(rest, row.get("messages"), row.get("rejected_messages"))


def openai_preference(row: Row) -> Row:
    """Rows of OpenAI's preference fine-tuning (also Together's and Fireworks')."""
    given: Any = row.get("input")
    context: Row = given if isinstance(given, dict) else {"messages": given}
    rest = {name: value for name, value in row.items() if name != "input"} | {"messages": context.get("messages")}
    tools = {"tools": tools_of(context["tools"], "input")} if context.get("tools") else {}
    made = _pair(rest, row.get("preferred_output"), row.get("non_preferred_output"))
    return made | tools


def _pair(row: Row, chosen: Any, rejected: Any) -> Row:
    """A canonical pair. An explicit prompt is kept, and extended by the messages that both answers begin with."""
    prompt, others = prompt_of(row)
    chosen, rejected = text_of(chosen, "chosen"), text_of(rejected, "rejected")
    for column, text in (("chosen", chosen), ("rejected", rejected)):
        if prompt is None and not isinstance(text, str | list):
            what = "it is null" if text is None else f"it is a {type(text).__name__}"
            raise RowError(column, what, "write a string, or a list of {role, content} messages")
    split = False
    if prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
        # HH-RLHF has whole dialogues without a prompt; a few have an empty turn or two equal dialogues.
        first, second = _turns(chosen), _turns(rejected)
        if first and second:
            if first == second or not all(turn["content"] for turn in first + second):
                raise LeftOutError("dialogues with an empty turn, or with two identical answers")
            chosen, rejected = first, second
        else:
            prompt, chosen, rejected = _split_texts(chosen, rejected)
            split = True
    if any(isinstance(text, list) for text in (prompt, chosen, rejected)) or needs_messages(row):
        chosen, rejected = with_role(chosen, "assistant"), with_role(rejected, "assistant")
        if isinstance(prompt, str | list | None) and isinstance(chosen, list) and isinstance(rejected, list):
            prompt, chosen, rejected = _split_messages(prompt, chosen, rejected)
            prompt = with_context(prompt, row)
    check_repeats(others, [prompt, chosen, rejected])
    made = {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_is_safe": row.get("chosen_is_safe"),
        "rejected_is_safe": row.get("rejected_is_safe"),
        "chosen_is_better": row.get("chosen_is_better", 1.0),
        "chosen_is_safer": row.get("chosen_is_safer"),
        "category": row.get("category"),
    } | ({"split": True} if split else {})
    for answer in ("chosen", "rejected"):
        made = with_harm(made, harm_text(row.get(f"{answer}_harm"), f"{answer}_harm"), answer)
    return made


def _split_messages(
    prompt: Any, chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """The prompt with all messages that both answers begin with, up to a user's or tool's, and what follows them."""
    given = [] if is_blank(prompt) else with_role(prompt, "user")
    if isinstance(prompt, list) and chosen[: len(given)] == rejected[: len(given)] == given:
        # Conversations that repeat the prompt.
        chosen, rejected = chosen[len(given) :], rejected[len(given) :]
    both = takewhile(lambda pair: pair[0] == pair[1], zip(chosen[:-1], rejected[:-1], strict=False))
    shared = [message for message, _ in both]
    shared = shared[: _after_last_question(shared)]
    if given and shared and given[-1]["role"] == "user":
        # UltraFeedback's and Argilla's conversations repeat the prompt, which is a column of its own, too.
        given = _not_repeated(given, shared)
    if not given and not shared:
        raise _no_prompt()
    return [*given, *shared], chosen[len(shared) :], rejected[len(shared) :]


def _not_repeated(given: list[Message], shared: list[Message]) -> list[Message]:
    """The messages of a prompt before those that the conversations repeat, up to white space.

    Raises:
        RowError: if the conversations begin with another prompt.
    """
    if all(any(_alike(one, other) for other in shared) for one in given):
        return []
    for size in range(min(len(given), len(shared)), 0, -1):
        if all(map(_alike, given[-size:], shared)):
            return given[:-size]
    if shared[0]["role"] == "assistant":
        return given
    remedy = "leave one of them out, e.g. with columns={'prompt': ''} (--column prompt=)"
    raise RowError("prompt", "it is not the prompt that both conversations begin with", remedy)


def _alike(one: Message, other: Message) -> bool:
    texts = [message.get("content") for message in (one, other)]
    known = all(isinstance(text, str) for text in texts)
    words = [text.split() if isinstance(text, str) else text for text in texts]
    return one.get("role") == other.get("role") and (words[0] == words[1] if known else one == other)


def _after_last_question(messages: list[Message]) -> int:
    """Number of messages up to the last one that an assistant answers."""
    places = (at for at in range(len(messages), 0, -1) if messages[at - 1].get("role") in ("user", "tool"))
    return next(places, 0)


def _split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """TRL's rule for texts without a prompt: their common beginning, without a space at its end."""
    both = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    prompt = "".join(letter for letter, _ in both).removesuffix(" ")
    if not prompt.strip() or len(prompt) == min(len(chosen), len(rejected)):
        raise _no_prompt()
    return prompt, chosen[len(prompt) :], rejected[len(prompt) :]


def _no_prompt() -> RowError:
    return RowError("prompt", "it is missing, and the answers have no beginning in common", "add a column 'prompt'")


_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def _turns(dialogue: str) -> list[Message] | None:
    """A transcript of HH-RLHF ("\\n\\nHuman: ...\\n\\nAssistant: ...") as messages; None for other texts."""
    before, *parts = _SPEAKER.split(dialogue)
    if before or not parts:
        return None
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _SPEAKERS[speaker], "content": text.strip()} for speaker, text in turns]
