"""The only way to the terminal: texts of servers, files and models can't control it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import rich.console
import typer
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from bfpo.judges.verdict import counts_of, endpoint_of

if TYPE_CHECKING:
    from bfpo.statistics.intervals import Estimate

# Control characters but tab and line feed (C0, DEL, C1), with what an escape sequence (ECMA-48) carries along; and the
# characters that reverse the direction of text (Unicode annex 9).
_CONTROLS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]|"
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)


def printable(text: str) -> str:
    """A text without control sequences, and without lone surrogates, which have no encoding."""
    return _CONTROLS.sub("", text).encode("utf-8", "replace").decode()


def echo(message: object = "", err: bool = False, nl: bool = True) -> None:
    """Print on standard output, or on standard error, with a line end unless ``nl`` is False."""
    typer.echo(printable(str(message)), err=err, nl=nl)


def print_spending(*clients: object) -> None:
    """Print on standard error what servers behind judges and generators counted in this process, and the cost."""
    for client in clients:
        endpoint = endpoint_of(client)
        if endpoint and any(astuple(endpoint.spent)):
            config, spent = endpoint.config, endpoint.spent
            cost = f", at a cost of {config.price.of(spent):,.4g}" if config.price else ""
            tokens = f"{spent.prompt:,} tokens of prompts and {spent.completion:,} of replies"
            echo(f"{config.model} at {config.url}: {tokens} in this run{cost}", err=True)


def print_work(*judges: Any) -> None:
    """Print on standard error what `print_spending` does, and what judges counted, such as texts that were cut off."""
    print_spending(*judges)
    for judge in judges:
        for name, count in counts_of(judge).items():
            echo(f"{judge.judge_id}: {name}: {count:,}", err=True)


def shown_rate(estimate: Estimate | None) -> str:
    """A rate with its interval."""
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]" if estimate else "not measured"


def wide_console() -> Console:
    """A console for wide tables: as wide as the terminal, and 170 characters in a file."""
    console = Console()
    return console if console.is_terminal else Console(width=170)


class Console(rich.console.Console):
    """A rich console that leaves control sequences out of all texts; its own styles stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of something, with printable texts."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
