"""``bfpo redteam --shard I/N``: a part of a turn's answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bfpo.cli.generators import progress_bar
from bfpo.cli.printing import echo, print_spending, print_work

if TYPE_CHECKING:
    from bfpo.cli.redteam_helpers import Helpers
    from bfpo.generation.protocol import Generator
    from bfpo.redteam.bank import Bank
    from bfpo.redteam.settings import RedTeam


def run_part(
    generator: Generator,
    helpers: Helpers,
    bank: Bank,
    settings: RedTeam,
    output: Path,
    shard: str,
    parts: Sequence[Path],
    as_json: bool,
) -> None:
    """Make the part of the next turn, and print what comes after it."""
    from bfpo.redteam.parts import attack_part
    from bfpo.shards import Shard

    own = Shard.parse(shard)
    judge, refusal_judge, _ = helpers.judges()
    with progress_bar() as progress:
        made = attack_part(
            generator, judge, bank.pairs, settings, output, own,
            parts=parts, refusal_judge=refusal_judge, progress=progress,
        )  # fmt: skip
    print_spending(generator)
    print_work(judge, refusal_judge)
    turn = None if made.turn is None else made.turn + 1
    if as_json:
        echo(json.dumps({"shard": str(own), "turn": turn, "answers": made.answers, "is_last": made.is_last}))
        return
    merging = "merge them: leave out --shard, and name another folder with -o"
    if turn is None:
        echo(f"All parts have finished all turns; {merging}.")
        return
    then = merging if made.is_last else "repeat all their commands, with --merge for the folder of each"
    echo(f"Part {own} of turn {turn} of {settings.turns} is in {output}, {made.answers:,} answers. Once all parts are")
    echo(f"there, {then}.")
