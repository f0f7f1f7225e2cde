"""``bfpo microworld``: make the embedded model again, or write its data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The embedded world: its model and data.")


@app.command()
def pretrain(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for model, tokenizer and record.")],
    seed: Annotated[int, typer.Option(help="Of corpus, weights and order.")] = 0,
) -> None:
    """Pretrain the embedded model and its tokenizer from nothing."""
    from bfpo.microworld.pretraining import Pretraining, pretrain
    from bfpo.quiet import quiet_libraries

    quiet_libraries()
    final = pretrain(output, Pretraining(seed=seed), lambda step, loss: typer.echo(f"step {step:5}  loss {loss:.4f}"))
    typer.echo(f"Final loss {final:.4f}; the model and pretraining.json are in {output}.")


@app.command()
def data(
    output: Annotated[Path, typer.Argument(help="Folder for chat.jsonl, safety.jsonl and helpful.jsonl.")],
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
) -> None:
    """Write the microworld's sets, in the shapes of UltraChat, PKU-SafeRLHF and UltraFeedback."""
    from bfpo.experiments.methods import Scale, write_data

    write_data(output, Scale(), seed)
    typer.echo(f"Wrote chat.jsonl, safety.jsonl and helpful.jsonl to {output}.")
