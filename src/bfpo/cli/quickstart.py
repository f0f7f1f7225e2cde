"""``bfpo quickstart``: from data to report on the built-in microworld."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from bfpo.cli.printing import Console, echo
from bfpo.errors import BfpoError


def quickstart(
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder, new or empty.")] = Path(
        "runs/quickstart"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Random seed for data, training and sampling.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove the files of an earlier quickstart first.")] = False,
) -> None:
    """Train and compare SFT, BFPO and three variants of DPO on the built-in microworld: offline, in minutes."""
    if fresh and (output / "data" / "chat.jsonl").exists():
        shutil.rmtree(output)
    if output.exists() and any(output.iterdir()):
        raise BfpoError(f"{output}: the folder is not empty; name another with --output, or remove it")
    from bfpo.quickstart import OWN_RECIPE, Scale, run_quickstart
    from bfpo.quiet import quiet_libraries
    from bfpo.reports.terminal import score_tables

    quiet_libraries()
    console = Console()
    result = run_quickstart(output, seed, Scale(), lambda line: console.print(f"[dim]{line}[/dim]", highlight=False))
    for table in score_tables(result.evaluations):
        console.print(table)
    echo(
        f"\nDone in {result.seconds / 60:.1f} minutes. Results are in {output}:\n"
        f"  {result.report.page}     report: plots, intervals, answers side by side\n"
        f"  {result.report.plots}           every plot as PNG and SVG\n"
        f"  {output}/models, evaluations, recipes, data\n"
        f"\nYour own model and data: edit {result.own_recipe}, then 'bfpo train {result.own_recipe} --plan':\n\n"
        f"{OWN_RECIPE}"
    )
