"""``bfpo study``: the experiments behind the project's claims."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The experiments behind the project's claims; hours, resumable.")


@app.callback()
def _group() -> None:
    """Keep the studies as subcommands."""


@app.command()
def quick(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of runs; go on by naming it again.")] = Path(
        "runs/study-quick"
    ),
    report: Annotated[Path, typer.Option(help="Folder for the Markdown, JSON and plot.")] = Path("docs/results"),
    seeds: Annotated[int, typer.Option(min=2, help="How many seeds, from 0.")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 2,
) -> None:
    """Five seeds of the quickstart, with every method's beta chosen from one grid."""
    from bfpo.experiments.methods import Scale
    from bfpo.experiments.study import run_study
    from bfpo.experiments.study_report import write_study

    summary = run_study(output, Scale(), range(seeds), workers, typer.echo)
    typer.echo(f"Wrote {write_study(report, summary)}.")
