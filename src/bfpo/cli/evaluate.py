"""``bfpo evaluate``: SafeHelp for one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[str, typer.Argument(help="Folder or Hub name of a model or adapter, or 'microworld'.")],
    suite: Annotated[str, typer.Option(help="Which benchmark.")] = "microworld",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for scores and records.")] = None,
    split: Annotated[str, typer.Option(help="test, or validation for choosing settings.")] = "test",
    samples: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of sampling; 0 is greedy.")] = 0.7,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of probability sampled from.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
    per_kind: Annotated[int, typer.Option(min=2, max=2000, help="Prompts of each kind.")] = 500,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Measure helpfulness, harmlessness and over-refusal, by sampled answers and by likelihood."""
    from bfpo.errors import BfpoError
    from bfpo.safehelp.suites import build_suite

    if split not in ("test", "validation"):
        raise BfpoError(f"--split {split}: choose test or validation")
    build_suite(suite, split, per_kind)

    from dataclasses import asdict

    from rich.console import Console

    from bfpo.generation.sampling import Decoding
    from bfpo.quiet import quiet_libraries
    from bfpo.reports.table import score_tables
    from bfpo.safehelp.evaluate import evaluate
    from bfpo.safehelp.models import load_for_evaluation

    quiet_libraries()
    loaded, tokenizer = load_for_evaluation(model)
    decoding = Decoding(temperature=temperature, top_p=top_p, samples=samples, seed=seed)
    name = Path(model).name
    result = evaluate(loaded, tokenizer, name=name, suite=suite, split=split, decoding=decoding, per_kind=per_kind)
    folder = output or Path("runs") / "evaluations" / f"{name}-{suite}"
    result.save(folder)
    if as_json:
        typer.echo(json.dumps({key: asdict(value) for key, value in result.scores.items()}, indent=2))
    else:
        for table in score_tables([result]):
            Console().print(table)
        typer.echo(f"Scores and a record for every answer are in {folder}.")
