"""``bfpo quickstart``: from data to report on the microworld, or of a chat model that is red-teamed and trained."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bfpo.cli.generators import progress_bar
from bfpo.cli.printing import Console, echo
from bfpo.errors import BfpoError

if TYPE_CHECKING:
    from bfpo.quickstart import QuickstartResult
    from bfpo.real_quickstart import RealQuickstartResult


def quickstart(
    model: Annotated[
        str | None,
        typer.Option(
            help="A chat model to red-team and train instead (folder or Hub name), e.g. --model runs/smollm2."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Output folder, by default runs/quickstart, with --model runs/quickstart-real."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for data, training and sampling.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove what an earlier quickstart wrote first.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print scores, times and the page's path as JSON; stages on standard error.")
    ] = False,
) -> None:
    """Train and compare SFT, BFPO and three variants of DPO on the built-in microworld: offline, in minutes.

    With --model, red-team a chat model, train SFT, BFPO and DPO on its answers, and compare; a stopped run resumes.
    """
    folder = output or Path("runs/quickstart" if model is None else "runs/quickstart-real")
    if fresh:
        from bfpo.cli.generators import check_model
        from bfpo.quickstart import check_folder, remove_quickstart

        check_folder(folder)
        if model is not None:
            check_model(model, None, None)
        remove_quickstart(folder)
    if model is None:
        _microworld(folder, seed, as_json)
    else:
        _real(model, folder, seed, as_json)


def _microworld(output: Path, seed: int, as_json: bool) -> None:
    from bfpo.quickstart import OWN_RECIPE, RECORD, Scale, check_folder, run_quickstart
    from bfpo.quiet import quiet_libraries

    check_folder(output)
    if (output / RECORD).exists():
        raise BfpoError(
            f"{output}: the folder holds an earlier quickstart; replace it with --fresh, or name another with --output"
        )
    quiet_libraries()
    console = Console(stderr=as_json)
    result = run_quickstart(output, seed, Scale(), lambda line: console.print(f"[dim]{line}[/dim]", highlight=False))
    if as_json:
        _print_json(result)
        return
    _print_tables(result, console)
    echo(
        f"\nDone in {result.seconds / 60:.1f} minutes. Results are in {output}:\n"
        f"  {result.report.page}     report: plots, intervals, answers side by side\n"
        f"  {result.report.plots}           every plot as PNG and SVG\n"
        f"  {output}/models, evaluations, recipes, data\n"
        f"\nYour own model and data: edit {result.own_recipe}, then 'bfpo train {result.own_recipe} --plan':\n\n"
        f"{OWN_RECIPE}"
    )


def _real(model: str, output: Path, seed: int, as_json: bool) -> None:
    from bfpo.quiet import quiet_libraries
    from bfpo.real_quickstart import RealScale, run_real_quickstart

    quiet_libraries()
    console = Console(stderr=as_json)
    with progress_bar() as progress:
        result = run_real_quickstart(
            model,
            output,
            seed,
            RealScale(),
            lambda line: console.print(f"[dim]{line}[/dim]", highlight=False),
            progress,
        )
    if as_json:
        _print_json(result, cpu_seconds=result.cpu_seconds, peak_memory=result.peak_memory, groups=result.groups)
        return
    _print_tables(result, console)
    echo(
        f"\nDone in {result.seconds / 60:.1f} minutes ({result.cpu_seconds / 60:.1f} of processor time, at most "
        f"{result.peak_memory / 2**30:.1f} GiB of memory). Results are in {output}:\n"
        f"  {result.report.page}     what happened, and all answers side by side\n"
        f"  {output}/models/BFPO, DPO, SFT   the trained adapters, for bfpo evaluate and peft\n"
        f"  {output}/red-team, recipes, evaluations"
    )


def _print_tables(result: QuickstartResult | RealQuickstartResult, console: Console) -> None:
    from bfpo.reports.terminal import score_tables

    for table in score_tables(result.evaluations):
        console.print(table)


def _print_json(result: QuickstartResult | RealQuickstartResult, **more: float) -> None:
    scores = {one.model: {name: asdict(score) for name, score in one.scores.items()} for one in result.evaluations}
    echo(json.dumps({"scores": scores, "report": str(result.report.page), "seconds": result.seconds, **more}, indent=2))
