"""``bfpo microworld``: data sets of the built-in microworld."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bfpo.cli.printing import echo

app = typer.Typer(no_args_is_help=True, help="Write the microworld's data sets.")


@app.command()
def data(
    output: Annotated[Path, typer.Argument(help="Folder for chat.jsonl, safety.jsonl and helpful.jsonl.")],
    seed: Annotated[int, typer.Option(help="Random seed for the data.")] = 0,
) -> None:
    """Write the microworld's data sets, in the formats of UltraChat, PKU-SafeRLHF and UltraFeedback."""
    from bfpo.quickstart import Scale, write_data

    write_data(output, Scale(), seed)
    echo(f"Wrote chat.jsonl, safety.jsonl and helpful.jsonl to {output}.")
