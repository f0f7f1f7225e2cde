"""Messages of chats: the forms that data sets write them in, and the one that chat templates read.

A canonical message has ``role`` and ``content``, and those of `CARRIED` that are not null. Its ``tool_calls`` are JSON
text, because a column of nested objects that differ from row to row has no fixed type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bfpo.preferences.schema import RowError, as_list
from bfpo.preferences.strict_json import load_json

Message = dict[str, Any]

# Fields that go to the chat template besides role and content.
CARRIED = ("name", "reasoning_content", "thinking", "tool_call_id", "tool_calls")
# Fields that say whether a message is trained on, as in OpenAI's, ms-swift's and axolotl's files.
_TRAINED = ("weight", "loss", "train", "training")
_REFUSED = ("audio", "images", "image", "refusal", "videos", "video")
_READ = ("role", "from", "content", "value", "function_call", "human", "assistant", *CARRIED, *_TRAINED, *_REFUSED)
_ROLES = {"human": "user", "gpt": "assistant", "observation": "tool", "tool_response": "tool", "function": "tool"}
# Roles of messages whose content is a tool call, in LLaMA-Factory's and ms-swift's files.
_CALLS = ("function_call", "tool_call")
_REMEDY = "write a string, or a list of {role, content} messages"


def messages_of(value: Any, column: str) -> list[Message]:
    """Canonical messages of a message or a list of messages, in any known form.

    Raises:
        RowError: if it is something else, or has something that can't be read.
    """
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, list):
        raise RowError(column, f"it is a {type(value).__name__}", _REMEDY)
    messages: list[Message] = []
    calls = False
    for item in items:
        for message in _turns(item):
            is_call = message.get("role") in _CALLS
            made = _message(message, column)
            if calls and is_call:
                # One message for calls that were made at once.
                both = json.loads(messages[-1]["tool_calls"]) + json.loads(made["tool_calls"])
                messages[-1]["tool_calls"] = _json(both)
            else:
                messages.append(made)
            calls = is_call
    return messages


def text_of(value: Any, column: str) -> Any:
    """A string, None or number as it is; messages as `messages_of` reads them."""
    return messages_of(value, column) if isinstance(value, list | Mapping) else value


def with_role(text: Any, role: str) -> Any:
    """A string as a message of a role; others as they are."""
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def tools_of(value: Any, column: str = "tools") -> str | None:
    """Tools as JSON text of a list of {type, function} objects, from such a list or JSON text; None if there are none.

    Raises:
        RowError: if it is something else.
    """
    parsed = _parsed(value, column, "tools")
    tools = [parsed] if isinstance(parsed, Mapping) else parsed
    if not isinstance(tools, list):
        raise RowError(column, "it is not a list of tools", "write a list of JSON schemas, or its JSON text")
    made = []
    for tool in tools:
        tool = _parsed(tool, column, "tool")
        function: Any = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not (isinstance(function, Mapping) and isinstance(function.get("name"), str)):
            raise RowError(column, "a tool has no name", "write {type, function: {name, description, parameters}}")
        made.append(tool if "function" in tool else {"type": "function", "function": tool})
    return _json(made) if made else None


def for_template(text: Sequence[Message]) -> list[Message]:
    """Messages as chat templates read them: without nulls, tool calls as objects."""
    messages = [{name: value for name, value in message.items() if value is not None} for message in text]
    return [
        message | {"tool_calls": json.loads(message["tool_calls"])}
        if isinstance(message.get("tool_calls"), str)
        else message
        for message in messages
    ]


def rendered(text: str | Sequence[Mapping[str, Any]]) -> str:
    """What judges read of a prompt or an answer: a string itself, the words of a single message, or several messages.

    These are paragraphs that begin with the role. A message's words are its content and its tool calls as JSON.
    """
    if isinstance(text, str):
        return text
    words = ["\n".join(filter(None, (message["content"], message.get("tool_calls")))) for message in text]
    if len(words) == 1:
        return words[0]
    return "\n\n".join(f"{message['role']}: {own}" for message, own in zip(text, words, strict=True))


def message_fields(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (column, field) of every field that is not null in a row's messages, whatever their form.

    A field is named as in canonical messages, e.g. "tool_calls" for a message with the role "function_call".
    """
    for column, value in row.items():
        for message in _found(value, depth=2):
            for name, own in message.items():
                if own is not None:
                    yield column, "tool_calls" if name == "function_call" else name
            if _role(message) in _CALLS:
                yield column, "tool_calls"


def is_read(field: str) -> bool:
    """Whether a field of a message is read or refused, and not ignored."""
    return field in _READ


def _found(value: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        if _role(value) is not None:
            yield value
        elif depth:
            for inner in value.values():
                yield from _found(inner, depth - 1)
    elif isinstance(value, list) and value and isinstance(value[0], list | Mapping) and depth:
        for inner in value:
            yield from _found(inner, depth - 1)


def _role(message: Mapping[str, Any]) -> Any:
    return message["role"] if "role" in message else message.get("from")


def _turns(item: Any) -> list[Any]:
    """A message, or the two messages of ms-swift's {human, assistant} objects."""
    if isinstance(item, Mapping) and _role(item) is None and "human" in item and "assistant" in item:
        return [{"role": "user", "content": item["human"]}, {"role": "assistant", "content": item["assistant"]}]
    return [{**item, "role": _role(item)} if isinstance(item, Mapping) else {}]


def _message(item: Mapping[str, Any], column: str) -> Message:
    role = item.get("role")
    if not isinstance(role, str):
        raise RowError(column, "a message has no role", _REMEDY)
    for name in _REFUSED:
        if item.get(name):
            remedy = "write it as text, or leave the row out"
            raise RowError(column, f"a message has {name!r}, which is not read", remedy)
    content = item["content"] if "content" in item else item.get("value")
    calls = item.get("tool_calls")
    if role in _CALLS:
        content, calls, role = "", content, "assistant"
    elif item.get("function_call"):
        calls = [item["function_call"]]
    made = {"role": _ROLES.get(role, role), "content": _content(content, column)}
    if calls or made["role"] == "tool":
        made["content"] = made["content"] or ""
    if calls:
        calls = _json([_call(call, column) for call in as_list(_parsed(calls, column, "tool_calls"))])
    for name in CARRIED:
        value = calls if name == "tool_calls" else item.get(name)
        if value:
            if not isinstance(value, str):
                raise RowError(column, f"{name!r} of a message is a {type(value).__name__}", "write it as a string")
            made[name] = value
    trained = [item[name] for name in _TRAINED if item.get(name) is not None]
    if any(not isinstance(flag, bool | int | float) for flag in trained):
        raise RowError(column, "a message's weight is not a number", "write 0 or 1")
    # Only for `check_trained`; not stored.
    return made | ({"trained": all(map(bool, trained))} if trained else {})


def check_trained(prompt: Any, answers: Sequence[Any]) -> None:
    """Refuse weights of messages that contradict what is trained on: the assistant's turns of answers.

    Raises:
        RowError: if a message of the prompt is to be trained on, or an assistant's message of an answer is not.
    """
    for message in _messages_in([prompt]):
        if message.get("trained") and message.get("role") == "assistant":
            what = "an earlier turn is marked as trained on, but only the answer is"
            raise RowError(None, what, "mark it with weight 0, or write one row for each turn")
    for message in _messages_in(answers):
        if message.get("trained") is False and message.get("role") == "assistant":
            raise RowError(None, "a turn of the answer is marked as not trained on", "move it into the prompt")


def _messages_in(texts: Sequence[Any]) -> list[Mapping[str, Any]]:
    lists = [text for text in texts if isinstance(text, list)]
    return [message for messages in lists for message in messages if isinstance(message, Mapping)]


def _content(content: Any, column: str) -> Any:
    """Content as a string; parts of text are joined."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        text: Any = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") == "text" else None
        if not isinstance(text, str):
            raise RowError(column, "a message has a part that is not text", "only text is read: leave the row out")
        texts.append(text)
    return "".join(texts)


def _call(call: Any, column: str) -> dict[str, Any]:
    """A tool call as {id, type, function: {name, arguments}} with its arguments as an object."""
    function: Any = call.get("function", call) if isinstance(call, Mapping) else None
    if not (isinstance(function, Mapping) and isinstance(function.get("name"), str)):
        raise RowError(column, "a tool call has no name", "write {function: {name, arguments}}")
    arguments = _parsed(function.get("arguments") or {}, column, "the arguments of a tool call")
    if not isinstance(arguments, Mapping):
        raise RowError(column, "the arguments of a tool call are not an object", "write {name: value} or its JSON text")
    identity = {"id": call["id"]} if call.get("id") is not None else {}
    return {**identity, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _parsed(value: Any, column: str, what: str) -> Any:
    """A value, or what its JSON text says."""
    if not isinstance(value, str):
        return value
    try:
        return load_json(value) if value.strip() else []
    except ValueError:
        raise RowError(column, f"{what}: the text is not JSON", "write JSON") from None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
