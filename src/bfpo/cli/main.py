"""The ``bfpo`` command: assembles the commands and turns errors into exit codes."""

from __future__ import annotations

import errno
import sys
import warnings
from typing import Annotated

import typer

from bfpo import __version__
from bfpo.cli import (
    compare,
    data,
    dial,
    evaluate,
    export,
    judge,
    label,
    microworld,
    model,
    quickstart,
    recipe,
    redteam,
    ref,
    report,
    train,
)
from bfpo.cli.printing import echo
from bfpo.errors import BfpoError, RunError
from bfpo.files import FULL
from bfpo.quiet import quiet_advice
from bfpo.stopping import Stopped, is_main_process, leave, stop_at_signals

app = typer.Typer(
    name="bfpo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Bi-Factorial Preference Optimization: language models that are safe and helpful.",
)
app.command()(quickstart.quickstart)
app.add_typer(data.app, name="data")
app.add_typer(judge.app, name="judge")
app.command()(label.label)
app.command()(redteam.redteam)
app.add_typer(recipe.app, name="recipe")
app.command()(train.train)
app.add_typer(ref.app, name="ref")
app.command()(evaluate.evaluate)
app.command()(dial.dial)
app.command()(compare.compare)
app.command()(report.report)
app.command()(export.export)
app.add_typer(microworld.app, name="microworld")
app.add_typer(model.app, name="model")


def _print_version(value: bool) -> None:
    if value:
        echo(f"bfpo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


# How to continue after a command was stopped; other commands start anew.
_CONTINUE = {
    "train": "run it again with --resume to continue",
    "quickstart": "with --model, run the same command again to continue; otherwise start again with --fresh",
    **dict.fromkeys(
        ("label", "judge", "evaluate", "redteam", "ref"), "run the same command again to continue from what was saved"
    ),
}


# Errors of files that can't be read or written.
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)


def main() -> None:
    """Run the command line: 0 done, 1 a failed check or run, 2 wrong usage or bad input, 130 and 143 stopped."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    quiet_advice()
    stop_at_signals()
    try:
        app()
    except Stopped as stopped:
        if is_main_process():
            go_on = _CONTINUE.get("".join(sys.argv[1:2]), "run the same command again")
            saved = f"{stopped.saved}; " if stopped.saved else ""
            echo(f"stopped by {stopped.signal.name}: {saved}{go_on}", err=True)
        leave(stopped.code)
    except BfpoError as error:
        echo(f"error: {error}", err=True)
        sys.exit(2)
    except RunError as error:
        echo(f"failed: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno not in (*FULL, *_NO_ACCESS):
            raise
        where = f"{error.filename}: " if error.filename else ""
        echo(
            f"failed: {where}{error.strerror}; check permissions and free space, or name an output elsewhere", err=True
        )
        sys.exit(1)
