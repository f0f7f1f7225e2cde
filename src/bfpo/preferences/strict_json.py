"""JSON as data sets should have it: what Python's parser reads and nothing else could use is refused."""

from __future__ import annotations

import json
import re
from typing import Any

# Depth of lists and objects inside each other; data has a handful.
_DEPTH = 64
# Digits of an integer that every float can stand for.
_DIGITS = 300
_TOO_DEEP = "lists or objects are nested too deeply"
# No string that can be encoded has one.
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class UnreadableJsonError(ValueError):
    """JSON that parses, but can't be used; the message says why."""


def load_json(text: str) -> Any:
    """The value of a JSON text; see `parse_json` and `check_json` for errors."""
    value = parse_json(text)
    if is_suspicious(text):
        check_json(value)
    return value


def parse_json(text: str) -> Any:
    """The value of a JSON text, unchecked; integers with more than 300 digits are infinite.

    Raises:
        json.JSONDecodeError: if it isn't JSON.
        UnreadableJsonError: if Python can't parse it because of its nesting, or an object has a key twice.
    """
    try:
        return json.loads(text, parse_int=_integer, object_pairs_hook=_object)
    except RecursionError:
        raise UnreadableJsonError(_TOO_DEEP) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise UnreadableJsonError(f"an object has the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def is_suspicious(text: str) -> bool:
    """Whether a text's value has to be checked; hardly any text's has."""
    return "\\ud" in text or "\\uD" in text or text.count("[") + text.count("{") > _DEPTH


def check_json(value: Any) -> None:
    """Look into everything, level by level.

    Raises:
        UnreadableJsonError: if it is nested too deeply, or a string holds half of a surrogate pair.
    """
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _DEPTH:
            raise UnreadableJsonError(_TOO_DEEP)
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += [*item, *item.values()]
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, str) and _HALF_PAIR.search(item):
                raise UnreadableJsonError(
                    f"the text {item[:20]!r} has half of a surrogate pair (an emoji that was cut)"
                )
        level = inner


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float("-inf" if digits.startswith("-") else "inf")
