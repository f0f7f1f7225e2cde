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


@app.command()
def labels(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of runs; go on by naming it again.")] = Path(
        "runs/study-labels"
    ),
    report: Annotated[Path, typer.Option(help="Folder for the Markdown, JSON and plot.")] = Path("docs/results"),
    seeds: Annotated[int, typer.Option(min=2, help="How many seeds, from 0.")] = 5,
    only: Annotated[
        int | None, typer.Option(min=0, help="Run at most so many cells, then report what there is.")
    ] = None,
) -> None:
    """How many labels must be people's: BFPO on 1 to 100 % of the oracle's labels, the rest from fitted judges.

    Several may run at once on one folder: each takes the next cell that nobody works on.
    """
    from bfpo.experiments.label_efficiency import cells, run_next, undone
    from bfpo.experiments.label_efficiency_report import write_label_efficiency
    from bfpo.quiet import quiet_libraries

    quiet_libraries()
    wanted = cells(range(seeds))
    for _ in range(len(wanted) if only is None else only):
        done = run_next(output, wanted)
        if done is None:
            break
        cell, result = done
        means = {name: sum(values) / len(values) for name, values in result["outcomes"].items()}
        typer.echo(f"{cell.name}: " + ", ".join(f"{name} {mean:.3f}" for name, mean in means.items()))
    typer.echo(f"Wrote {write_label_efficiency(report, output, wanted)}; {len(undone(output, wanted))} cells to go.")
