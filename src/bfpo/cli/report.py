"""``bfpo report``: a page that compares evaluations, or a model card for one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bfpo.cli.printing import echo
from bfpo.errors import BfpoError
from bfpo.files import whole_file


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders that 'bfpo evaluate' wrote, in the order to show them; by default those before and after "
            "the rounds of --redteam."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the page (runs/report by default), or file for the card (README.md by default).",
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Run folder or model to compare the others with; the first by default.")
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Safe and helpful?",
    redteam: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER", help="Folder that 'bfpo redteam' wrote, to show how often attacks worked; repeatable."
        ),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Write a Hugging Face model card for one run instead of a page.")
    ] = False,
) -> None:
    """Write a self-contained HTML page and its plots as PNG and SVG files, or a model card."""
    runs = runs or []
    if card and (len(runs) != 1 or baseline or redteam):
        raise BfpoError("--card describes a single run: name one folder and leave out --baseline and --redteam")
    if card and output and output.is_dir():
        raise BfpoError(
            f"--output {output}: this is a folder; name a file for the card, such as {output / 'README.md'}"
        )
    if not card and output and output.is_file():
        raise BfpoError(f"--output {output}: this is a file; name a folder for the page and its plots")

    if card:
        _write_card(runs[0], output or Path("README.md"))
        return
    from bfpo.reports.page import build_report

    folder = output or Path("runs") / "report"
    made = build_report(runs, folder, title=title, baseline=baseline, redteam=redteam or [])
    for model in made.models:
        if model.number in made.incomparable:
            echo(f"warning: {model.name} was not compared: {made.incomparable[model.number]}", err=True)
    echo(f"Wrote {made.page}, and every plot as PNG and SVG in {made.plots}.")


def _write_card(run: Path, path: Path) -> None:
    from bfpo.reports.card import model_card
    from bfpo.safehelp.records import Evaluation

    if path.exists() and "Measured by SafeHelp" not in path.read_text(encoding="utf-8", errors="replace"):
        raise BfpoError(f"{path}: this file isn't a card by 'bfpo report --card'; name another, or move it away")
    card = model_card(Evaluation.load(run))
    with whole_file(path) as temporary:
        card.save(temporary)
    echo(f"Wrote {path}.")
