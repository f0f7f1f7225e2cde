"""``bfpo redteam --rounds``: its plan, its run and its table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from bfpo.cli.generators import progress_bar
from bfpo.cli.printing import Console, echo, print_spending, print_work, shown_rate
from bfpo.cli.redteam_helpers import Helpers
from bfpo.errors import BfpoError

if TYPE_CHECKING:
    from bfpo.redteam.bank import Bank
    from bfpo.rounds import Rounds, RoundsResult
    from bfpo.statistics.intervals import Estimate


def run_rounds(
    model: str,
    output: Path,
    helpers: Helpers,
    bank: Bank,
    given: Mapping[str, Any],
    known: Mapping[str, Sequence[str]],
    plan: bool,
    as_json: bool,
) -> None:
    """Run several rounds, or print their plan; ``given`` is for `Rounds`, ``known`` has evaluation prompts by file."""
    if model.endswith(".json"):
        raise BfpoError(f"--rounds trains the model, and {model} is a dial between two: name a local model")
    from bfpo.rounds import Rounds

    settings = Rounds(**given)
    if plan:
        _print_plan(settings, bank, as_json)
        return
    from bfpo.microworld.data import held_out_prompts
    from bfpo.quiet import quiet_libraries
    from bfpo.rounds import RoundJudges, red_team_rounds

    quiet_libraries()
    judges = RoundJudges(*helpers.judges())
    suites = {"microworld": held_out_prompts()}
    attacker = helpers.load_attacker()
    with progress_bar() as progress:
        found = red_team_rounds(
            model, judges, bank, settings, output, evaluation=known, attacker=attacker,
            progress=progress, say=lambda line: echo(line, err=as_json), suites=suites,
        )  # fmt: skip
    print_spending(attacker and attacker.generator)
    print_work(judges.labeling, judges.refusal, judges.evaluation)
    if as_json:
        echo(json.dumps(asdict(found), indent=2))
    else:
        _print(found, settings)


def _print_plan(settings: Rounds, bank: Bank, as_json: bool) -> None:
    planned = settings.planned(bank)
    if as_json:
        echo(json.dumps(planned))
        return
    echo(
        f"{planned['rounds']:,} rounds of {settings.red_team.attacks:,} attacks and {settings.red_team.measured:,} in "
        f"held-out styles, each with its twin: {planned['answers_in_rounds']:,} answers. {planned['trainings']:,} "
        f"trainings by {settings.recipe.name}. Before and after, held-out requests in all styles: "
        f"{planned['answers_before_and_after']:,} answers. In all {planned['answers']:,} answers of at most "
        f"{settings.red_team.decoding.max_new_tokens} tokens ({planned['most_tokens']:,}), and as many verdicts."
    )


def _print(found: RoundsResult, settings: Rounds) -> None:
    from bfpo.redteam.measuring import HELD_OUT_STYLES, TRAINED_STYLES

    table = Table(box=None, pad_edge=False, caption=f"On held-out requests; {found.caption}.", caption_justify="left")
    table.add_column("", no_wrap=True)
    for column in ("unsafe before", "unsafe after", "twins refused"):
        table.add_column(column, justify="right", no_wrap=True)
    before, after = found.before, found.after
    for style in (*settings.styles, TRAINED_STYLES, HELD_OUT_STYLES):
        if style in before.success or style in after.success:
            name = f"{style} (held out)" if style in settings.red_team.held_out else style
            refused = _change(before.over_refusal.get(style), after.over_refusal.get(style))
            table.add_row(name, shown_rate(before.success.get(style)), shown_rate(after.success.get(style)), refused)
    table.add_row("plain requests", "", "", _change(before.plain_refused, after.plain_refused))
    Console().print(table)
    if found.stopped:
        echo(f"Ended early in {found.stopped}.")
    echo(f"The last model is {found.model}.")


def _change(before: Estimate | None, after: Estimate | None) -> str:
    return f"{before.value:.2f} -> {after.value:.2f}" if before and after else "not measured"
