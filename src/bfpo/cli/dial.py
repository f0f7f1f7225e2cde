"""``bfpo dial``: a policy between two trained ones, without training it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bfpo.cli.printing import echo
from bfpo.errors import BfpoError

# Answers to a prompt, to measure the distance of the policy mixed token by token.
_SAMPLES = 64


def dial(
    first: Annotated[Path, typer.Argument(help="Folder of a BFPO run.")],
    second: Annotated[Path, typer.Argument(help="Folder of a run of the same recipe with another b1.")],
    b3: Annotated[float, typer.Option(help="Weight of safety, 1/(b1 - 1), between those of the two runs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write, for 'bfpo evaluate'.")],
    candidates: Annotated[
        int,
        typer.Option(
            min=1, help="Maximum number of candidates per exact answer; 1 mixes token by token, which is cheaper."
        ),
    ] = 32,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts on which to measure how far the token-by-token policy is off.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of these prompts, in order; each gets 64 answers.")] = 8,
) -> None:
    """Interpolate between two BFPO runs: sample as a model trained at a b3 between theirs would.

    For example: bfpo dial runs/b1-9 runs/b1-2 --b3 0.5 -o dial.json.
    """
    from bfpo.generation.dial_file import dial_between

    found = dial_between(first, second, b3, candidates)
    found.save(output)
    echo(f"b3 {b3:g} is {found.share:.3f} of the way from {found.low} to {found.high}. Wrote {output}.")
    if prompts:
        from bfpo.generation.protocol import Decoding
        from bfpo.preferences.overlap import load_prompts
        from bfpo.quiet import quiet_libraries

        quiet_libraries()
        texts = load_prompts(str(prompts))[:limit]
        if not texts:
            raise BfpoError(f"{prompts}: it has no prompts")
        echo(f"Sampling {_SAMPLES} answers to each of {len(texts)} prompts from both models ...", err=True)
        drift = found.load_models().drift(texts, Decoding(max_new_tokens=64), _SAMPLES)
        echo(
            f"Mixed token by token, the policy is {drift:.3f} off in total variation ({len(texts)} prompts, {_SAMPLES} "
            "answers each, at most 64 tokens)."
        )
