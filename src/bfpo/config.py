"""Closed configurations: schemas for YAML files and options, and error messages that name every wrong value."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError

from bfpo.errors import BfpoError, did_you_mean


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


def _problem(problem: Any, config: type) -> str:
    location = problem["loc"]
    name = ".".join(map(str, location)) or "settings"
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {name!r}{did_you_mean(str(location[-1]), _keys_beside(config, location))}"
    if problem["type"] == "missing":
        return f"the key {name!r} is missing"
    if problem["type"] == "value_error":  # a sentence of our own
        return f"{name}: {problem['ctx']['error']}"
    return f"{name}: {problem['msg'][0].lower()}{problem['msg'][1:]}, not {problem['input']!r}"


def _keys_beside(config: type, location: Sequence[str | int]) -> Collection[str]:
    """The valid alternatives to a location's last key."""
    hints = get_type_hints(config)
    for key in location[:-1]:
        inner = _configuration_in(hints.get(str(key)))
        hints = get_type_hints(inner) if inner else hints
    return hints


def _configuration_in(annotation: Any) -> type | None:
    """The first configuration class inside a type such as ``list[Source] | None``."""
    if isinstance(annotation, type) and (is_dataclass(annotation) or issubclass(annotation, BaseModel)):
        return annotation
    return next((found for part in get_args(annotation) if (found := _configuration_in(part))), None)
