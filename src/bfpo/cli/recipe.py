"""``bfpo recipe``: list, print and copy the packaged recipes."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from bfpo.cli.printing import echo
from bfpo.errors import BfpoError, did_you_mean
from bfpo.files import write_text

app = typer.Typer(no_args_is_help=True, help="List, print and copy packaged recipes.")


# Prefix of the configurations of 'accelerate launch', which are packaged with the recipes.
_LAUNCH = "accelerate/"


def _packaged() -> dict[str, str]:
    """The recipes, and the configurations for several processes, by name."""
    folder = files("bfpo.recipes")
    return {
        prefix + entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8")
        for prefix, inside in (("", folder), (_LAUNCH, folder / "accelerate"))
        for entry in inside.iterdir()
        if entry.name.endswith(".yaml")
    }


def _text(name: str) -> str:
    recipes = _packaged()
    if name not in recipes:
        raise BfpoError(
            f"no packaged recipe {name!r}{did_you_mean(name, recipes)}: choose from {', '.join(sorted(recipes))}"
        )
    return recipes[name]


@app.command("list")
def list_recipes() -> None:
    """List the packaged recipes, and configurations of 'accelerate launch', with their purpose."""
    recipes = _packaged()
    width = max(map(len, recipes))
    for name, text in sorted(recipes.items()):
        echo(f"{name:{width}}  {text.splitlines()[0].removeprefix('# ')}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of a packaged recipe.")]) -> None:
    """Print a recipe."""
    echo(_text(name), nl=False)


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="Name of a packaged recipe.")],
    to: Annotated[Path | None, typer.Argument(help="File to write; by default NAME.yaml here.")] = None,
) -> None:
    """Copy a recipe to a file of your own."""
    path = to or Path(f"{name.removeprefix(_LAUNCH)}.yaml")
    text = _text(name)
    if path.exists():
        raise BfpoError(f"{path} exists: name another file, or remove it first")
    write_text(path, text)
    if name.startswith(_LAUNCH):
        echo(f"Wrote {path}; 'accelerate launch --config_file {path} -m bfpo train RECIPE' uses it.")
        return
    echo(f"Wrote {path}; 'bfpo train {path} --plan' estimates its steps, memory and time.")
