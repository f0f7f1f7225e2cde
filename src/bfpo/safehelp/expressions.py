"""Sandboxed Jinja templates and expressions over the columns of a row, with limits of time, memory and length."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from jinja2 import StrictUndefined, Undefined, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bfpo.errors import one_line

try:
    import resource
except ImportError:  # Windows has no limits of memory
    resource = None

# Limits of one evaluation; ordinary templates take less than a millisecond.
_SECONDS, _MEMORY, _CHARACTERS, _POWER_BITS = 1.0, 2**29, 10**7, 10**5
# Parts of a source that take no more than its own length and the row's: columns, constants, choices between them. A
# source of nothing else needs no limits, which cost ten times as much as its evaluation.
_LINEAR = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem,
    nodes.Slice, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test, nodes.List,
    nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Concat, nodes.Add, nodes.Sub, nodes.Neg,
)  # fmt: skip
# The limit of memory is the process's, so one evaluation at a time sets and restores it.
_LIMITED = Lock()


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox that also refuses powers too large to compute in time, which nothing could interrupt."""

    intercepted_binops = frozenset(["**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _POWER_BITS:
            raise OverflowError(f"a power has more than {_POWER_BITS:,} bits")
        return super().call_binop(context, operator, left, right)


_ENVIRONMENT = _Environment(undefined=StrictUndefined, keep_trailing_newline=True)


class ExpressionError(Exception):
    """An invalid template or expression, or a row that it can't evaluate."""


def template(source: str) -> Callable[[Mapping[str, Any]], str]:
    """A text with ``{{ column }}`` placeholders, as a function of a row.

    Columns are variables; ``row`` is the whole row, for columns whose names aren't identifiers.

    Raises:
        ExpressionError: if it doesn't compile; when called, if the row lacks a column, rendering fails, or it takes
            more than a second, 512 MiB or 10 million characters.
    """
    try:
        # Compiling evaluates constants.
        render = _limited(_ENVIRONMENT.from_string, source).render
        is_linear = _limited(_is_linear, source)
    except Exception as error:  # Jinja code can raise any error
        raise ExpressionError(f"no Jinja template ({_reason(error)})") from error
    return lambda row: _evaluated(render, row, is_linear)


def expression(source: str) -> Callable[[Mapping[str, Any]], Any]:
    """An expression such as ``label`` or ``1 if answer == '2' else 0``; for variables and errors see `template`."""
    try:
        evaluate = _limited(_ENVIRONMENT.compile_expression, source, False)
        is_linear = _limited(_is_linear, f"{{{{ {source} }}}}")
    except Exception as error:
        raise ExpressionError(f"no Jinja expression ({_reason(error)}); quote a text as 'text'") from error
    return lambda row: _evaluated(evaluate, row, is_linear)


def _is_linear(source: str) -> bool:
    tree = _ENVIRONMENT.parse(source)
    return all(isinstance(node, _LINEAR) for node in tree.find_all(nodes.Node))


def _evaluated(evaluate: Callable[[dict[str, Any]], Any], row: Mapping[str, Any], is_linear: bool) -> Any:
    variables = {**row, "row": row}
    try:
        value = evaluate(variables) if is_linear else _limited(evaluate, variables)
        parts = value if isinstance(value, list | tuple) else [value]
        for part in parts:
            if isinstance(part, Undefined):
                str(part)  # raises an error that names the missing column
        if sum(len(part) for part in parts if isinstance(part, str)) > _CHARACTERS:
            raise OverflowError(f"the result is longer than {_CHARACTERS:,} characters")
    except Exception as error:
        raise ExpressionError(f"{_reason(error)}; the row has {', '.join(map(str, row))}") from error
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"it takes more than {_MEMORY // 2**20} MiB of memory"
    return one_line(error)


def _limited(evaluate: Callable[..., Any], *arguments: Any) -> Any:
    """The value of a call, which may take `_SECONDS` of CPU time, and on Linux `_MEMORY` more than the process has.

    A trace function checks the time at every line of Jinja's generated code and every call in it; unlike a signal it
    works in any thread. It isn't called in this frame, so that the limits are always restored.

    Raises:
        TimeoutError: if it takes longer.
        MemoryError: if it needs more.
    """
    deadline = time.thread_time() + _SECONDS

    def check(frame: Any, event: str, argument: Any) -> Any:
        if time.thread_time() > deadline:
            raise TimeoutError(f"it takes longer than {_SECONDS:g} s")
        return check if frame.f_code.co_filename.startswith("<") else None

    with _LIMITED:
        before, tracing = _set_memory(), sys.gettrace()
        sys.settrace(check)
        try:
            return evaluate(*arguments)
        finally:
            sys.settrace(tracing)
            if resource is not None and before is not None:
                resource.setrlimit(resource.RLIMIT_AS, before)


def _set_memory() -> tuple[int, int] | None:
    """Limit the process's memory; returns the limits before, or None if there is no such limit here."""
    used = Path("/proc/self/statm")
    if resource is None or not used.exists():
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = int(used.read_text(encoding="ascii").split()[0]) * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard))
    return soft, hard
