"""``bfpo report``: evaluations as one page, or one of them as a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders that 'bfpo evaluate' wrote, in the order of the page.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the page; the file of a card.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Run or model that others are compared with; by default the first.")
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Safe and helpful?",
    card: Annotated[bool, typer.Option("--card", help="Write the run's Hugging Face model card instead.")] = False,
) -> None:
    """Write one self-contained HTML page with every plot as PNG and SVG, or a model card."""
    from bfpo.errors import BfpoError

    if card and (len(runs) != 1 or baseline):
        raise BfpoError("--card describes one run; name one folder and no --baseline")
    if card and output and output.is_dir():
        raise BfpoError(f"--output {output}: is a folder; name the card's file, such as {output / 'README.md'}")
    if not card and output and output.is_file():
        raise BfpoError(f"--output {output}: is a file; name a folder for the page and its plots")

    from bfpo.safehelp.records import Evaluation

    evaluations = [Evaluation.load(run) for run in runs]
    if card:
        from bfpo.reports.card import model_card

        path = output or Path("README.md")
        path.parent.mkdir(parents=True, exist_ok=True)
        model_card(evaluations[0]).save(path)
        typer.echo(f"Wrote {path}.")
        return

    from bfpo.reports.page import tell, write_report

    folders = [run.resolve() for run in runs]
    named = Path(baseline).resolve() if baseline else None
    story = tell(evaluations, title=title, baseline=folders.index(named) if named in folders else baseline)
    written = write_report(story, output or Path("runs") / "report")
    for subject in story.subjects:
        if subject.number in story.incomparable:
            typer.echo(f"warning: {subject.name} stands alone: {story.incomparable[subject.number]}", err=True)
    typer.echo(f"Wrote {written.page}, and every plot as PNG and SVG in {written.plots}.")
