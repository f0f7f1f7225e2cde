"""How a row becomes texts and values: Jinja templates and expressions over the row's columns, in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


class ExpressionError(Exception):
    """What is wrong with a template or an expression, or with a row for it."""


class Template:
    """A text with ``{{ column }}`` in it."""

    def __init__(self, source: str) -> None:
        """Compile it.

        Raises:
            ExpressionError: if it is no template.
        """
        try:
            self._template = _ENVIRONMENT.from_string(source)
        except TemplateError as error:
            raise ExpressionError(f"no Jinja template ({error})") from error

    def __call__(self, row: Mapping[str, Any]) -> str:
        """The text for a row, whose columns are names; ``row`` is the row itself, for columns that are no names.

        Raises:
            ExpressionError: if the row lacks a column, or the template fails on it.
        """
        try:
            return self._template.render({**row, "row": row})
        except Exception as error:  # a template can raise whatever Python can
            raise ExpressionError(_reason(error, row)) from error


class Expression:
    """A value such as ``label`` or ``1 if answer == '2' else 0``."""

    def __init__(self, source: str) -> None:
        """Compile it.

        Raises:
            ExpressionError: if it is no expression.
        """
        try:
            self._evaluate = _ENVIRONMENT.compile_expression(source, undefined_to_none=False)
        except TemplateError as error:
            raise ExpressionError(f"no Jinja expression ({error}); quote a text as 'text'") from error

    def __call__(self, row: Mapping[str, Any]) -> Any:
        """The value for a row; see `Template`.

        Raises:
            ExpressionError: if the row lacks a column, or the expression fails on it.
        """
        try:
            value = self._evaluate({**row, "row": row})
            for part in value if isinstance(value, list | tuple) else [value]:
                if isinstance(part, Undefined):
                    str(part)  # raises, and says what is missing
        except Exception as error:  # an expression can raise whatever Python can
            raise ExpressionError(_reason(error, row)) from error
        return value


def _reason(error: Exception, row: Mapping[str, Any]) -> str:
    return f"{' '.join(str(error).split()) or type(error).__name__}; the row has {', '.join(map(str, row))}"
