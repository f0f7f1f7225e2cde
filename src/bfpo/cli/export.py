"""``bfpo export``: an evaluation in another program's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bfpo.cli.printing import echo
from bfpo.errors import BfpoError


def export(
    run: Annotated[Path, typer.Argument(help="Folder that 'bfpo evaluate' wrote.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Parent folder; a subfolder named after the model is created in it."),
    ],
    to: Annotated[
        str, typer.Option(metavar="lm-eval|inspect", help="Results and samples of lm-eval, or inspect-ai's logs.")
    ] = "lm-eval",
) -> None:
    """Write a run in another program's format, e.g. bfpo export runs/eval/mine -o runs/logs --to inspect."""
    from bfpo.safehelp.inspect_log_export import export_inspect
    from bfpo.safehelp.lm_eval_export import export_lm_eval
    from bfpo.safehelp.records import Evaluation

    if output.is_file():
        raise BfpoError(f"--output {output}: this is a file; name a folder")
    if to not in ("lm-eval", "inspect"):
        raise BfpoError(f"--to {to}: write lm-eval or inspect")
    if to == "inspect":
        logs = export_inspect(Evaluation.load(run), output)
        echo(f"Wrote {len(logs)} logs in {logs[0].parent}; look at them with: inspect view --log-dir {logs[0].parent}")
        return
    results, *samples = export_lm_eval(Evaluation.load(run), output)
    echo(f"Wrote {results}, and {len(samples)} file{'s' if len(samples) != 1 else ''} of samples beside it.")
