"""``bfpo microworld``: data sets of the built-in microworld, in any of its worlds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bfpo.cli.printing import echo

app = typer.Typer(no_args_is_help=True, help="Write the microworld's data sets.")


@app.command()
def data(
    output: Annotated[Path, typer.Argument(help="Folder for chat.jsonl, safety.jsonl and helpful.jsonl.")],
    seed: Annotated[int, typer.Option(min=0, help="Random seed for the data.")] = 0,
    world: Annotated[str, typer.Option(help="World to draw from; 'bfpo microworld list' shows them.")] = "W0",
) -> None:
    """Write the microworld's data sets, in the formats of UltraChat, PKU-SafeRLHF and UltraFeedback."""
    from bfpo.microworld.worlds import load_world
    from bfpo.quickstart import Scale, write_data

    write_data(output, Scale(), seed, load_world(world))
    echo(f"Wrote chat.jsonl, safety.jsonl and helpful.jsonl of world {world} to {output}.")


@app.command("list")
def list_worlds() -> None:
    """List the microworld's worlds."""
    from bfpo.microworld.worlds import WORLDS

    width = max(map(len, WORLDS))
    for name, world in WORLDS.items():
        echo(f"{name:{width}}  {world.summary}")
