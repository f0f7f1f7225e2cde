"""``bfpo export``: an evaluation in another program's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bfpo.cli.printing import echo
from bfpo.errors import BfpoError


def export(
    run: Annotated[Path, typer.Argument(help="Folder that 'bfpo evaluate' wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for a folder named after the model.")],
) -> None:
    """Write a run as lm-eval's results_*.json and samples_*.jsonl, e.g. bfpo export runs/eval/mine -o runs/lm-eval."""
    from bfpo.safehelp.lm_eval_export import export_lm_eval
    from bfpo.safehelp.records import Evaluation

    if output.is_file():
        raise BfpoError(f"--output {output}: this is a file; name a folder")
    results, *samples = export_lm_eval(Evaluation.load(run), output)
    echo(f"Wrote {results}, and {len(samples)} file{'s' if len(samples) != 1 else ''} of samples beside it.")
