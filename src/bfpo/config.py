"""Closed configurations and records: YAML and JSON files, their types, and errors that name every wrong value."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from bfpo.errors import BfpoError, did_you_mean, one_line

# The ``__pydantic_config__`` of a dataclass that refuses keys it doesn't know, wherever it is in a record.
CLOSED = ConfigDict(extra="forbid")
# Wrong values of a record that a message names.
_NAMED = 5
# A wrong value may be a whole file, nested as deeply as Python can read.
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 100


class Closed(BaseModel):
    """An immutable configuration that refuses keys it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Config = TypeVar("_Config", bound=BaseModel)


def validated(config: type[_Config], values: Mapping[str, Any], where: str) -> _Config:
    """Build a configuration from its values by key; an error message begins with ``where``.

    Raises:
        BfpoError: if keys or values are wrong; the message names all of them.
    """
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise BfpoError(f"{where}: {'; '.join(_problem(each, config) for each in error.errors())}") from error
    except BfpoError as error:  # of a part that checks itself, such as a decoding
        raise BfpoError(f"{where}: {error}") from error


_Value = TypeVar("_Value")


def read_json(path: Path, kind: type[_Value], what: str, remedy: str) -> _Value:
    """The value in a JSON file, checked against its type.

    Args:
        path: the file.
        kind: type of the value, such as a dataclass, closed by `CLOSED`, or ``dict[str, Any]``.
        what: what the file should be, such as "a labeling".
        remedy: what to do if it isn't.

    Raises:
        BfpoError: if the file can't be read, or isn't such a value.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _unreadable(path, what, getattr(error, "strerror", None) or error, remedy) from error
    return parse_json(content, kind, str(path), what, remedy)


def parse_json(content: bytes, kind: type[_Value], where: str, what: str, remedy: str) -> _Value:
    """The value of a JSON text in UTF-8; an error message begins with ``where``, otherwise as in `read_json`."""
    try:
        value = json.loads(content.decode())
    except ValueError as error:  # not UTF-8, not JSON, or an integer of thousands of digits
        raise _unreadable(where, what, error, remedy) from error
    except RecursionError:
        raise _unreadable(where, what, "it is nested too deeply", remedy) from None
    return checked(value, kind, where, what, remedy)


def checked(value: Any, kind: type[_Value], where: str, what: str, remedy: str) -> _Value:
    """A value as its type, for `read_json`."""
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        problems = [_problem(each, kind) for each in error.errors()]
        more = f"; and {len(problems) - _NAMED:,} more" if len(problems) > _NAMED else ""
        raise _unreadable(where, what, "; ".join(problems[:_NAMED]) + more, remedy) from error
    except BfpoError as error:  # of a part that checks itself
        raise _unreadable(where, what, error, remedy) from error


def _unreadable(where: str | Path, what: str, reason: object, remedy: str) -> BfpoError:
    return BfpoError(f"{where}: can't be read as {what} ({reason}); {remedy}")


@cache
def _adapter(kind: type[_Value]) -> TypeAdapter[_Value]:
    return TypeAdapter(kind)


class _StrictLoader(yaml.SafeLoader):
    """YAML without its traps: a repeated or an empty key is an error, and 5e-7 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, value in node.value:
            name, problem = key.value if isinstance(key, yaml.ScalarNode) else key, None
            if name in seen:
                problem = f"the key {name!r} is there twice"
            elif isinstance(value, yaml.ScalarNode) and value.value == "" and not value.style:
                problem = f"the key {name!r} has no value; write one, write null, or remove the key"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads numbers with an exponent but without a dot as text.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+"), list("-+0123456789")
)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; an error message begins with ``where``.

    Raises:
        BfpoError: if it isn't valid YAML, or a key is repeated or has no value.
    """
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BfpoError(f"{where}{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-01
        raise BfpoError(f"{where}: not valid YAML: {one_line(error)}") from error
    except RecursionError:
        raise BfpoError(f"{where}: not valid YAML: it is nested too deeply") from None


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The keys and values of a YAML file that describes ``what``, such as "a recipe".

    Raises:
        BfpoError: if the file can't be read, or isn't a mapping with text as keys.
    """
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BfpoError(f"{path}: can't be read as {what} ({error}); check the path") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise BfpoError(f"{path}: {what} is a mapping of keys to values, one 'key: value' per line")
    return values


def _problem(problem: Any, config: type) -> str:
    location = problem["loc"]
    name = ".".join(map(str, location)) or "settings"
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {name!r}{did_you_mean(str(location[-1]), _keys_beside(config, location))}"
    if problem["type"] == "missing":
        return f"the key {name!r} is missing"
    if not location and problem["type"] in ("dataclass_type", "model_type", "dict_type"):
        return f"it should be an object with keys, not {_SHORT.repr(problem['input'])}"
    if problem["type"] == "value_error":  # a sentence of our own
        return f"{name}: {problem['ctx']['error']}"
    return f"{name}: {problem['msg'][0].lower()}{problem['msg'][1:]}, not {_SHORT.repr(problem['input'])}"


def _keys_beside(config: type, location: Sequence[str | int]) -> Collection[str]:
    """The valid alternatives to a location's last key."""
    hints = get_type_hints(_configuration_in(config) or config)
    for key in location[:-1]:
        inner = _configuration_in(hints.get(str(key)))
        hints = get_type_hints(inner) if inner else hints
    return hints


def _configuration_in(annotation: Any) -> type | None:
    """The first configuration class inside a type such as ``list[Source] | None``."""
    if isinstance(annotation, type) and (is_dataclass(annotation) or issubclass(annotation, BaseModel)):
        return annotation
    return next((found for part in get_args(annotation) if (found := _configuration_in(part))), None)
