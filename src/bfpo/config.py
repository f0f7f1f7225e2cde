"""Closed configurations: what YAML files and options are checked against, and the sentence about what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from bfpo.errors import BfpoError, did_you_mean


class Closed(BaseModel):
    """An immutable configuration that refuses keys it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Config = TypeVar("_Config", bound=BaseModel)


def validated(config: type[_Config], values: Mapping[str, Any], where: str) -> _Config:
    """A configuration made of values.

    Args:
        config: its class.
        values: by key.
        where: the file, or whatever else the message should begin with.

    Raises:
        BfpoError: if a key or a value is wrong; the message names all of them.
    """
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise BfpoError(f"{where}: {'; '.join(_problem(each, config) for each in error.errors())}") from error


def _problem(problem: Any, config: type[BaseModel]) -> str:
    location = problem["loc"]
    name = ".".join(map(str, location)) or "settings"
    if problem["type"] == "extra_forbidden":
        return f"unknown key {name!r}{did_you_mean(str(location[-1]), _owner(config, location).model_fields)}"
    if problem["type"] == "missing":
        return f"the key {name!r} is missing"
    if problem["type"] == "value_error":  # a sentence of our own
        return f"{name}: {problem['ctx']['error']}"
    return f"{name}: {problem['msg'][0].lower()}{problem['msg'][1:]}, not {problem['input']!r}"


def _owner(config: type[BaseModel], location: Sequence[Any]) -> type[BaseModel]:
    """The configuration that holds the last key of a location: ``config`` or one of those within it."""
    for key in location[:-1]:
        field = config.model_fields.get(key)
        config = (_within(field.annotation) if field else None) or config
    return config


def _within(annotation: Any) -> type[BaseModel] | None:
    """The first configuration that a type such as ``list[Source] | None`` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _within(part))), None)
