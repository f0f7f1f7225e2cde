"""``bfpo microworld``: data sets of the built-in microworld, in any of its worlds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bfpo.cli.printing import echo
from bfpo.errors import BfpoError
from bfpo.files import check_replaceable, file_sha256, json_lines, write_rows

app = typer.Typer(no_args_is_help=True, help="Write the microworld's data sets.")


@app.command()
def data(
    output: Annotated[Path, typer.Argument(help="Folder for chat.jsonl, safety.jsonl and helpful.jsonl.")],
    seed: Annotated[int, typer.Option(min=0, help="Random seed for the data.")] = 0,
    world: Annotated[str, typer.Option(help="World to draw from; 'bfpo microworld list' shows them.")] = "W0",
) -> None:
    """Write the microworld's data sets, in the formats of UltraChat, PKU-SafeRLHF and UltraFeedback."""
    from bfpo.microworld.worlds import load_world
    from bfpo.quickstart import Scale, data_sets

    sets = data_sets(Scale(), seed, load_world(world))
    for name, rows in sets.items():
        check_replaceable(output / name, partial(_check_rows, rows), f"that of world {world} with seed {seed}")
    for name, rows in sets.items():
        write_rows(output / name, rows)
    echo(f"Wrote chat.jsonl, safety.jsonl and helpful.jsonl of world {world} to {output}.")


def _check_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    if file_sha256(path) != hashlib.sha256("".join(json_lines(rows)).encode()).hexdigest():
        raise BfpoError(f"{path}: it has other rows")


@app.command("list")
def list_worlds() -> None:
    """List the microworld's worlds."""
    from bfpo.microworld.worlds import WORLDS

    width = max(map(len, WORLDS))
    for name, world in WORLDS.items():
        echo(f"{name:{width}}  {world.summary}")
