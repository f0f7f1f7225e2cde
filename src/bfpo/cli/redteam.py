"""``bfpo redteam``: attack a model with styled requests, make training data of its answers, and train in rounds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from bfpo.cli.evaluate_options import ApiKeyEnv, Endpoint, Engine, given
from bfpo.cli.generators import check_model, check_whole, load_generator, progress_bar
from bfpo.cli.printing import Console, echo, print_spending, print_work, shown_rate
from bfpo.cli.redteam_helpers import Helpers
from bfpo.errors import BfpoError
from bfpo.files import check_exists
from bfpo.model_names import place_of

if TYPE_CHECKING:
    from bfpo.generation.protocol import Generator
    from bfpo.redteam.bank import Bank
    from bfpo.redteam.running import Attacked
    from bfpo.redteam.settings import RedTeam


Target = Annotated[str, typer.Argument(help="The model to attack, named as in 'bfpo evaluate'.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; an interrupted run resumes from it.")]
Judge = Annotated[
    str, typer.Option(help="Safety judge ('bfpo judge list'); it reads the request and not the attack's wording.")
]
RefusalJudge = Annotated[
    str | None, typer.Option(help="Judge that decides which answers decline; by default the safety judge.")
]
Prompts = Annotated[
    str | None, typer.Option(help="File of risky requests with benign twins; by default bfpo's prompt bank.")
]
Attacks = Annotated[int | None, typer.Option(min=1, help="Number of attacks; 200 by default.")]
Turns = Annotated[int | None, typer.Option(min=1, help="Number of turns to spread the attacks over; 4 by default.")]
StyleNames = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Attack style to train on; repeatable. By default six.")
]
HeldOutStyles = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Style to measure only; repeatable. By default the rest."),
]
Samples = Annotated[
    int | None, typer.Option(min=1, help="Answers to each prompt; 4 by default, at least 2 without --refusal.")
]
Temperature = Annotated[float | None, typer.Option(min=0.0, help="Sampling temperature; 0.7 by default.")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Maximum tokens per answer; 256 by default.")]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Answers in a batch; 256 by default. With --shard, each part gets whole batches."),
]
Seed = Annotated[int, typer.Option(min=0, help="Random seed of attacks and answers.")]
EvaluationFiles = Annotated[
    list[str] | None, typer.Option(metavar="FILE", help="Evaluation prompts, which no group may contain; repeatable.")
]
Refusals = Annotated[
    list[str] | None,
    typer.Option(
        "--refusal",
        metavar="TEXT",
        help="Refusal to add to each prompt's answers; repeatable: one is drawn at random per prompt.",
    ),
]
AttackerModel = Annotated[
    str | None, typer.Option("--attacker", help="Model that rewords requests, as a further style, named like MODEL.")
]
AttackerEndpoint = Annotated[str | None, typer.Option(metavar="URL", help="Server of the attacker.")]
RoundCount = Annotated[
    int | None,
    typer.Option("--rounds", min=1, help="Number of rounds; each attacks the model, then trains on its answers."),
]
Recipe = Annotated[
    Path | None, typer.Option(help="Recipe of the models that --rounds trains; by default redteam-bfpo.")
]
HeldOutRequests = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Share of requests held out of --rounds, to measure the model before and after; by default .25.",
    ),
]
EvaluationJudge = Annotated[
    str | None,
    typer.Option(help="Safety judge of the models before and after --rounds; by default the one that labels."),
]
ShardOption = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Only answer part I of N of the next turn, for --merge; repeat it for each turn."),
]
Merge = Annotated[
    list[Path] | None,
    typer.Option(help="Folder of a part (--shard), whose answers are taken; repeatable, once for every part."),
]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Print the number of answers without asking for any.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def redteam(
    model: Target,
    output: Output,
    judge: Judge,
    refusal_judge: RefusalJudge = None,
    prompts: Prompts = None,
    attacks: Attacks = None,
    turns: Turns = None,
    style: StyleNames = None,
    held_out_style: HeldOutStyles = None,
    samples: Samples = None,
    temperature: Temperature = None,
    max_new_tokens: MaxNewTokens = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    evaluation: EvaluationFiles = None,
    refusal: Refusals = None,
    attacker: AttackerModel = None,
    attacker_endpoint: AttackerEndpoint = None,
    rounds: RoundCount = None,
    recipe: Recipe = None,
    held_out_requests: HeldOutRequests = None,
    evaluation_judge: EvaluationJudge = None,
    endpoint: Endpoint = None,
    engine: Engine = None,
    api_key_env: ApiKeyEnv = None,
    shard: ShardOption = None,
    merge: Merge = None,
    plan: PlanOnly = False,
    as_json: AsJson = False,
) -> None:
    """Attack a model and turn its answers into training data, e.g. bfpo redteam MODEL --judge JUDGE -o runs/attacks."""
    from bfpo.preferences.overlap import load_prompts
    from bfpo.redteam.bank import load_bank

    own = given(recipe=recipe, held_out_requests=held_out_requests)
    if engine and (rounds is not None or endpoint):
        raise BfpoError("--engine: has no effect with --endpoint or --rounds; leave it out")
    _check_rounds(rounds, endpoint, [*own, *given(evaluation_judge=evaluation_judge)])
    if attacker_endpoint and attacker is None:
        raise BfpoError("--attacker-endpoint: only works together with --attacker; leave it out")
    if shard or merge:
        _check_parts(shard, engine, evaluation, rounds is not None or attacker is not None or plan)
    sampling = given(
        samples=samples, temperature=temperature, max_new_tokens=max_new_tokens, batch_size=batch_size, seed=seed
    )
    settings = _settings(attacks, turns, style, held_out_style, sampling, attacker is not None, refusal)
    bank = load_bank(prompts)
    known = {file: load_prompts(file) for file in evaluation or ()}
    helpers = Helpers(judge, refusal_judge, evaluation_judge, attacker, attacker_endpoint, api_key_env)
    _check_inputs(model, endpoint, api_key_env, recipe, helpers, plan)
    if rounds is not None:
        from bfpo.cli.redteam_rounds import run_rounds

        run_rounds(model, output, helpers, bank, {"rounds": rounds, "red_team": settings, **own}, known, plan, as_json)
    elif plan:
        _print_plan(settings, len(bank.pairs), as_json)
    else:
        generator = load_generator(model, endpoint, api_key_env, engine=engine)
        _run(generator, helpers, bank, settings, output, known, (shard, merge or []), as_json)


def _check_inputs(
    model: str, endpoint: str | None, key: str | None, recipe: Path | None, helpers: Helpers, plan: bool
) -> None:
    """Refuse files, judges and models that don't exist; paths first, before imports that take seconds."""
    if endpoint is None:
        place_of(model)
    if recipe is not None:
        check_exists(recipe)
    helpers.check()
    if plan:
        check_model(model, endpoint, key)


def _check_parts(shard: str | None, engine: str | None, evaluation: list[str] | None, does_more: bool) -> None:
    check_whole(engine, shard)
    if does_more:
        raise BfpoError(
            "--shard and --merge: leave out --rounds, which trains between its attacks; --attacker, which every part "
            "would ask anew; and --plan"
        )
    if shard and evaluation:
        raise BfpoError("--evaluation: only works when the parts are merged; leave it out with --shard")


def _check_rounds(rounds: int | None, endpoint: str | None, of_rounds: list[str]) -> None:
    if rounds is None and of_rounds:
        raise BfpoError(f"--{of_rounds[0].replace('_', '-')}: only works together with --rounds; leave it out")
    if rounds is not None and endpoint:
        raise BfpoError("--rounds trains the model, and one behind --endpoint can't be trained: name a local model")


def _run(
    generator: Generator,
    helpers: Helpers,
    bank: Bank,
    settings: RedTeam,
    output: Path,
    known: Mapping[str, Sequence[str]],
    parts: tuple[str | None, Sequence[Path]],
    as_json: bool,
) -> None:
    """Attack the model, or make the next part of it."""
    shard, merge = parts
    if shard:
        from bfpo.cli.redteam_parts import run_part

        run_part(generator, helpers, bank, settings, output, shard, merge, as_json)
        return
    from bfpo.redteam.running import GROUPS, red_team

    judge, refusal_judge, _ = helpers.judges()
    attacker = helpers.load_attacker()
    with progress_bar() as progress:
        found = red_team(
            generator, judge, bank.pairs, settings, output,
            evaluation=known, refusal_judge=refusal_judge, attacker=attacker, merge=merge, progress=progress,
        )  # fmt: skip
    print_spending(generator, attacker and attacker.generator)
    print_work(judge, refusal_judge)
    if as_json:
        echo(json.dumps(asdict(found), indent=2))
    else:
        _print(found, settings, output / GROUPS)


def _settings(
    attacks: int | None,
    turns: int | None,
    styles: list[str] | None,
    held_out: list[str] | None,
    sampling: Mapping[str, Any],
    has_attacker: bool,
    refusals: list[str] | None,
) -> RedTeam:
    from bfpo.redteam.attacker import STYLE
    from bfpo.redteam.settings import RedTeam
    from bfpo.redteam.styles import HELD_OUT_STYLES

    chosen = given(attacks=attacks, turns=turns, seed=sampling["seed"], refusals=tuple(refusals or ()))
    if styles:
        chosen["styles"] = tuple(styles)
        chosen["held_out"] = tuple(name for name in HELD_OUT_STYLES if name not in styles)
    if held_out:
        chosen["held_out"] = tuple(held_out)
    if has_attacker and STYLE not in (*(styles or ()), *(held_out or ())):
        chosen["styles"] = (*chosen.get("styles", RedTeam().styles), STYLE)
    return RedTeam(**chosen, decoding=replace(RedTeam().decoding, **sampling))


def _print_plan(settings: RedTeam, pairs: int, as_json: bool) -> None:
    from bfpo.redteam.attacker import STYLE as ATTACKER
    from bfpo.redteam.attacker import TRIES

    # No request is tried twice in a style.
    attacks = min(settings.attacks, pairs * len(settings.styles))
    measured = min(settings.measured, pairs * len(settings.held_out))
    prompts = 2 * (attacks + measured)
    planned = {
        "prompts": prompts,
        "answers": prompts * settings.decoding.samples,
        "most_tokens": prompts * settings.decoding.samples * settings.decoding.max_new_tokens,
    }
    if as_json:
        echo(json.dumps(planned))
        return
    echo(
        f"{attacks:,} attacks in {settings.turns} turns and {measured:,} in held-out styles, each "
        f"with its twin: {planned['answers']:,} answers of at most {settings.decoding.max_new_tokens} tokens "
        f"({planned['most_tokens']:,} in all), and as many verdicts."
    )
    if ATTACKER in (*settings.styles, *settings.held_out):
        echo(f"The attacker is asked for {TRIES} wordings of each request that is attacked in its style.")


def _print(found: Attacked, settings: RedTeam, groups: Path) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("", "attacks", "answered unsafely", "twins refused"):
        table.add_column(column, justify="left" if not column else "right")
    for style in (*settings.styles, *settings.held_out):
        if style in found.attacks:
            name = f"{style} (held out)" if style in settings.held_out else style
            rates = [of.get(f"style {style}") for of in (found.success, found.over_refusal)]
            table.add_row(name, f"{found.attacks[style]:,}", *map(shown_rate, rates))
    Console().print(table)
    tried = sum(found.attacks.get(style, 0) for style in settings.styles)
    if tried < settings.attacks:
        echo(f"Tried {tried:,} of {settings.attacks:,} attacks: the prompt bank has no more for these styles.")
    if not found.over_refusal:
        echo(
            "Caution: the judge doesn't report refusals, so the twins give no training signal: name another one with "
            "--refusal-judge."
        )
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in found.left_out.items())
    echo(f"{found.groups:,} groups to train on in {groups}." + (f" Left out: {left_out}." if left_out else ""))
