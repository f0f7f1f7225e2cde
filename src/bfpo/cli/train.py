"""``bfpo train``: run a recipe, or print its plan and estimated cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from bfpo.cli.evaluate_options import JudgeErrors, error_rates
from bfpo.cli.printing import Console, echo, print_spending
from bfpo.errors import BfpoError
from bfpo.files import check_exists

if TYPE_CHECKING:
    from bfpo.training.recipe import ResolvedRecipe
    from bfpo.training.run_plan import Plan

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the recipe; repeatable.")
]


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe file; 'bfpo recipe copy NAME' writes a packaged one.")],
    overrides: Overrides = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print estimated steps, memory and time without training.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the newest complete checkpoint.")] = False,
    bound: Annotated[
        str | None,
        typer.Option(
            metavar="attack_success<=X",
            help="Search for the smallest safety weight (b3) at which the share of unsafe answers stays within X; "
            "train there.",
        ),
    ] = None,
    bound_data: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Harmful prompts for checking the bound; never used for training."),
    ] = None,
    bound_judge: Annotated[str | None, typer.Option(help="Safety judge for the answers to --bound-data.")] = None,
    bound_corners: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="Smallest and largest b3, both of which are trained; 0.1,2 by default."),
    ] = None,
    judge_errors: JudgeErrors = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum tokens per answer when checking the bound; 256 by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan or the result as JSON.")] = False,
) -> None:
    """Train a model as a recipe describes, e.g. bfpo train recipe.yaml --set beta=0.1."""
    how = {
        "bound-data": bound_data, "bound-judge": bound_judge, "bound-corners": bound_corners,
        "judge-errors": judge_errors, "max-new-tokens": max_new_tokens,
    }  # fmt: skip
    unread = [name for name, value in how.items() if value is not None and not bound]
    if unread:
        raise BfpoError(f"--{unread[0]}: only works together with --bound; leave it out")
    if plan and bound:
        raise BfpoError("--plan describes one run, and --bound trains several: leave one of them out")

    check_exists(recipe, "no such recipe; 'bfpo recipe list' shows the packaged ones")
    if bound_data is not None:
        check_exists(bound_data)

    # Imported after the checks, because they take seconds.
    from bfpo.microworld.data import held_out_prompts
    from bfpo.training.recipe import load_recipe

    resolved = load_recipe(recipe, overrides or [])
    suites = {"microworld": held_out_prompts()}
    if plan:
        _plan(resolved, suites, as_json)
    elif bound:
        _train_to_bound(resolved, suites, bound, how, resume, as_json)
    else:
        _train(resolved, suites, resume, as_json)


def _plan(resolved: ResolvedRecipe, suites: dict[str, list[str]], as_json: bool) -> None:
    from bfpo.training.run_plan import plan_recipe

    made = plan_recipe(resolved, suites)
    if as_json:
        echo(json.dumps(asdict(made) | {"memory_bytes": made.memory_bytes, "seconds": made.seconds}, indent=2))
    else:
        _print_plan(made)


def _train(resolved: ResolvedRecipe, suites: dict[str, list[str]], resume: bool, as_json: bool) -> None:
    import torch.distributed

    from bfpo.training.run import train as run_training

    with _progress(resolved) as progress:
        run = run_training(resolved, resume=resume, say=lambda line: echo(line, err=as_json), suites=suites, **progress)
    if torch.distributed.is_initialized():
        main_process = torch.distributed.get_rank() == 0
        torch.distributed.destroy_process_group()
        if not main_process:
            return
    if as_json:
        echo(json.dumps({"folder": str(run.folder), "seconds": run.seconds, "metrics": run.metrics}))
    else:
        echo(f"The trained model and its run.json are in {run.folder} ({run.seconds:.0f} s).")


@contextmanager
def _progress(resolved: ResolvedRecipe) -> Iterator[dict[str, Any]]:
    """Arguments of training that show its progress, which stops however training ends."""
    from bfpo.quiet import quiet_libraries
    from bfpo.training.progress import ProgressLine, ReferenceProgress

    quiet_libraries()
    console = Console(stderr=True)
    training, reference = ProgressLine(console, resolved.recipe.batch_size), ReferenceProgress(console)
    try:
        yield {"callbacks": [training], "reference_progress": reference}
    finally:
        training.progress.stop()
        reference.progress.stop()


def _train_to_bound(
    resolved: ResolvedRecipe,
    suites: dict[str, list[str]],
    bound: str,
    how: Mapping[str, Any],
    resume: bool,
    as_json: bool,
) -> None:
    from bfpo.bounding import Bound, train_to_bound
    from bfpo.generation.protocol import Decoding
    from bfpo.judges import load_judge

    if how["bound-data"] is None or how["bound-judge"] is None:
        raise BfpoError("--bound needs --bound-data FILE, harmful prompts, and --bound-judge JUDGE")
    settings: dict[str, Any] = {"error": error_rates(how["judge-errors"])}
    if corners := how["bound-corners"]:
        try:
            low, high = map(float, corners.split(","))
        except ValueError:
            raise BfpoError(f"--bound-corners {corners}: write LOW,HIGH, such as 0.1,2") from None
        settings["corners"] = (low, high)
    if longest := how["max-new-tokens"]:
        settings["decoding"] = Decoding(temperature=1.0, top_p=1.0, max_new_tokens=longest)
    judge = load_judge(how["bound-judge"])
    wanted = Bound.parse(bound, how["bound-data"], judge, **settings)
    with _progress(resolved) as progress:
        found = train_to_bound(
            resolved, wanted, lambda line: echo(line, err=as_json), resume=resume, suites=suites, **progress
        )
    print_spending(judge)
    if as_json:
        echo(json.dumps({"folder": str(found.run.folder), "b3": found.b3, "statement": found.statement}))
    else:
        echo(f"The model at b3 {found.b3:.3f} is in {found.run.folder}. {found.statement}")


def _print_plan(plan: Plan) -> None:
    options = ", ".join(f"{key} {value}" for key, value in plan.objective.items() if key != "name")
    buffer = plan.groups_per_step - plan.main_groups_per_step
    cost = plan.estimate
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "objective": f"{plan.objective['name']} ({options})" if options else plan.objective["name"],
        "weights": f"{plan.size.parameters:,}, of which {plan.size.trainable:,} train"
        + (f" and {plan.size.quantized:,} are held in 4 bits" if plan.size.quantized else ""),
        "groups": f"{plan.main_groups:,} main, {plan.buffer_groups:,} buffer",
        "steps": f"{plan.steps:,} of {plan.groups_per_step} groups ({plan.main_groups_per_step} main, {buffer} buffer)"
        if plan.buffer_groups
        else f"{plan.steps:,} of {plan.groups_per_step} groups",
        "tokens per epoch": f"{cost.tokens:,} ({cost.computed_tokens:,} through the model)",
        "peak memory (estimate)": f"{plan.memory_bytes / 2**30:.2f} GiB on {plan.device} in {plan.precision}",
        "time of the run (estimate)": f"{plan.seconds / 60:.1f} minutes on this machine, "
        f"{cost.reference_seconds / 60:.1f} of them for the reference",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    for source, counts in plan.encoding.items():
        table.add_row(
            f"encoding {source}",
            ", ".join(f"{key} {value}" for key, value in counts.items() if value and not key.startswith("first_")),
        )
    Console().print(table)
