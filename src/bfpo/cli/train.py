"""``bfpo train``: run a recipe, or print its plan and estimated cost."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bfpo.cli.printing import Console, echo

if TYPE_CHECKING:
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan or the result as JSON.")] = False,
) -> None:
    """Train a model as a recipe describes: BFPO, DPO, IPO or SFT."""
    from bfpo.microworld.data import held_out_prompts
    from bfpo.training.recipe import load_recipe

    resolved = load_recipe(recipe, overrides or [])
    suites = {"microworld": held_out_prompts()}
    if plan:
        from bfpo.training.run_plan import plan_recipe

        made = plan_recipe(resolved, suites)
        if as_json:
            echo(json.dumps(asdict(made) | {"memory_bytes": made.memory_bytes, "seconds": made.seconds}, indent=2))
        else:
            _print_plan(made)
        return
    import torch.distributed

    from bfpo.quiet import quiet_libraries
    from bfpo.training.progress import ProgressLine, ReferenceProgress
    from bfpo.training.run import train as run_training

    quiet_libraries()
    console = Console(stderr=True)
    run = run_training(
        resolved,
        resume=resume,
        callbacks=[ProgressLine(console, resolved.recipe.batch_size)],
        say=lambda line: echo(line, err=as_json),
        reference_progress=ReferenceProgress(console),
        suites=suites,
    )
    if torch.distributed.is_initialized():
        main_process = torch.distributed.get_rank() == 0
        torch.distributed.destroy_process_group()
        if not main_process:
            return
    if as_json:
        echo(json.dumps({"folder": str(run.folder), "seconds": run.seconds, "metrics": run.metrics}))
    else:
        echo(f"The trained model and its run.json are in {run.folder} ({run.seconds:.0f} s).")


def _print_plan(plan: Plan) -> None:
    options = ", ".join(f"{key} {value}" for key, value in plan.objective.items() if key != "name")
    buffer = plan.groups_per_step - plan.main_groups_per_step
    cost = plan.estimate
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "objective": f"{plan.objective['name']} ({options})" if options else plan.objective["name"],
        "weights": f"{plan.size.parameters:,}, of which {plan.size.trainable:,} train",
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
        table.add_row(f"encoding {source}", ", ".join(f"{key} {value}" for key, value in counts.items() if value))
    Console().print(table)
