"""Sandboxed Jinja templates and expressions over the columns of a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


class ExpressionError(Exception):
    """An invalid template or expression, or a row that it can't evaluate."""


class Template:
    """A text with ``{{ column }}`` placeholders.

    Columns are variables; ``row`` is the whole row, for columns whose names aren't identifiers.

    Raises:
        ExpressionError: if it doesn't compile; when called, if the row lacks a column or rendering fails.
    """

    def __init__(self, source: str) -> None:
        try:
            self._template = _ENVIRONMENT.from_string(source)
        except TemplateError as error:
            raise ExpressionError(f"no Jinja template ({error})") from error

    def __call__(self, row: Mapping[str, Any]) -> str:
        """The text for a row."""
        try:
            return self._template.render({**row, "row": row})
        except Exception as error:  # a template can raise any error
            raise ExpressionError(_reason(error, row)) from error


class Expression:
    """An expression such as ``label`` or ``1 if answer == '2' else 0``; for variables and errors see `Template`."""

    def __init__(self, source: str) -> None:
        try:
            self._evaluate = _ENVIRONMENT.compile_expression(source, undefined_to_none=False)
        except TemplateError as error:
            raise ExpressionError(f"no Jinja expression ({error}); quote a text as 'text'") from error

    def __call__(self, row: Mapping[str, Any]) -> Any:
        """The value for a row."""
        try:
            value = self._evaluate({**row, "row": row})
            for part in value if isinstance(value, list | tuple) else [value]:
                if isinstance(part, Undefined):
                    str(part)  # raises an error that names the missing column
        except Exception as error:  # an expression can raise any error
            raise ExpressionError(_reason(error, row)) from error
        return value


def _reason(error: Exception, row: Mapping[str, Any]) -> str:
    return f"{' '.join(str(error).split()) or type(error).__name__}; the row has {', '.join(map(str, row))}"
