"""Sandboxed Jinja templates and expressions over the columns of a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


class ExpressionError(Exception):
    """An invalid template or expression, or a row that it can't evaluate."""


def template(source: str) -> Callable[[Mapping[str, Any]], str]:
    """A text with ``{{ column }}`` placeholders, as a function of a row.

    Columns are variables; ``row`` is the whole row, for columns whose names aren't identifiers.

    Raises:
        ExpressionError: if it doesn't compile; when called, if the row lacks a column or rendering fails.
    """
    try:
        render = _ENVIRONMENT.from_string(source).render
    except TemplateError as error:
        raise ExpressionError(f"no Jinja template ({error})") from error
    return lambda row: _evaluated(render, row)


def expression(source: str) -> Callable[[Mapping[str, Any]], Any]:
    """An expression such as ``label`` or ``1 if answer == '2' else 0``; for variables and errors see `template`."""
    try:
        evaluate = _ENVIRONMENT.compile_expression(source, undefined_to_none=False)
    except TemplateError as error:
        raise ExpressionError(f"no Jinja expression ({error}); quote a text as 'text'") from error
    return lambda row: _evaluated(evaluate, row)


def _evaluated(evaluate: Callable[[dict[str, Any]], Any], row: Mapping[str, Any]) -> Any:
    try:
        value = evaluate({**row, "row": row})
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, Undefined):
                str(part)  # raises an error that names the missing column
    except Exception as error:  # Jinja code can raise any error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ExpressionError(f"{reason}; the row has {', '.join(map(str, row))}") from error
    return value
