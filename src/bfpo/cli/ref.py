"""``bfpo ref``: the cache of reference log-probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bfpo.cli.printing import Console, echo
from bfpo.cli.train import Overrides
from bfpo.errors import BfpoError, RunError

app = typer.Typer(no_args_is_help=True, help="Build, list and verify cached reference log-probabilities.")
Folder = Annotated[
    Path | None,
    typer.Argument(help="Folder of the cache; by default $BFPO_CACHE/reference or ~/.cache/bfpo/reference."),
]


@app.command()
def build(
    recipe: Annotated[Path, typer.Argument(help="Recipe whose reference to score; an interrupted pass resumes.")],
    overrides: Overrides = None,
) -> None:
    """Score a recipe's data with its reference model, so that training can start without this pass."""
    from bfpo.quiet import quiet_libraries
    from bfpo.training.progress import ReferenceProgress
    from bfpo.training.recipe import load_recipe
    from bfpo.training.run import build_trainer

    resolved = load_recipe(recipe, overrides or [])
    if resolved.recipe.reference_cache is None:
        raise BfpoError(f"{recipe}: reference_cache is null, so there is nowhere to store the reference; name a folder")
    quiet_libraries()
    progress = ReferenceProgress(Console(stderr=True))
    try:
        counts = build_trainer(resolved, {}, [], reference_progress=progress).reference
    finally:
        progress.progress.stop()
    echo(f"reference: {counts.scored:,} answers scored, {counts.reused:,} already in the cache")


@app.command()
def show(folder: Folder = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the models in the cache and how many answers are stored for each."""
    import json

    from bfpo.engine.reference_cache import default_cache_folder, summarize

    root = folder or default_cache_folder()
    summaries = list(summarize(root))
    if as_json:
        rows = [
            {"folder": str(each.folder), **each.description, "answers": each.answers, "tokens": each.tokens}
            | {"bytes": each.size, "damaged": [str(path) for path in each.damaged]}
            for each in summaries
        ]
        echo(json.dumps(rows, indent=2))
        return
    for each in summaries:
        described = ", ".join(str(value) for value in each.description.values() if value)
        echo(f"{each.folder.name}  {each.answers:>9,} answers  {each.size / 2**20:7.1f} MiB  {described}")
    echo(f"{len(summaries)} models in {root}")


@app.command()
def verify(folder: Folder = None) -> None:
    """Check every file in the cache against its digest; exits with code 1 if any is damaged."""
    from bfpo.engine.reference_cache import default_cache_folder, summarize

    root = folder or default_cache_folder()
    summaries = list(summarize(root))
    damaged = [path for each in summaries for path in each.damaged]
    for path in damaged:
        echo(f"damaged: {path}")
    if damaged:
        raise RunError(
            f"{len(damaged)} files of the reference cache are damaged: delete them, and their rows are scored again"
        )
    echo(f"{sum(each.answers for each in summaries):,} answers of {len(summaries)} models in {root} are intact")
