"""``python -m studies``: commands for the studies and for pretraining the bundled model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bfpo.errors import BfpoError
from bfpo.quickstart import Scale
from bfpo.quiet import quiet_libraries
from bfpo.safehelp.suites import load_suite
from studies.decisive.jobs import Job
from studies.decisive.labels_report import write_labels
from studies.decisive.methods import ARMS, METHODS, Method
from studies.decisive.planning import read_results
from studies.decisive.planning import run_next as run_next_decisive
from studies.decisive.report import write_report
from studies.dial_and_bound import SCALE, run_bounds, run_places
from studies.dial_and_bound import write_report as write_dial
from studies.pretraining import Pretraining
from studies.pretraining import pretrain as pretrain_model
from studies.quick import run_study
from studies.quick_report import write_study
from studies.quickstart_settings import TRIALS, run_trial
from studies.real.jobs import Job as RealJob
from studies.real.jobs import Setup as RealSetup
from studies.real.planning import read_results as read_real
from studies.real.planning import run_next as run_next_real
from studies.real.report import write_report as write_real
from studies.red_teaming import Setup, run_seeds
from studies.red_teaming_report import write_report as write_red_teaming

Report = Annotated[Path, typer.Option(help="Folder for the Markdown, JSON and plot.")]
Seeds = Annotated[int, typer.Option(min=2, help="Number of seeds, from 0.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the runs; an interrupted study resumes from it.")
]
Results = Annotated[Path, typer.Option(help="Folder of the results, which are committed.")]
Only = Annotated[int | None, typer.Option(min=0, help="Run at most this many, then write the report.")]
REPORT = Path("docs/results")
DECISIVE, REAL, DIAL, REDTEAM = (
    Path("studies", name) for name in ("decisive/results", "real/results", "results/dial", "results/redteam")
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def quick(
    output: Output = Path("runs/study-quick"),
    report: Report = REPORT,
    seeds: Seeds = 5,
    workers: Annotated[int, typer.Option(min=1, help="Jobs to run at a time.")] = 2,
) -> None:
    """Run five seeds of the quickstart, with every method's beta chosen from one grid."""
    summary = run_study(output, Scale(), range(seeds), workers, typer.echo)
    typer.echo(f"Wrote {write_study(report, summary)}.")


@app.command()
def decisive(
    output: Output = Path("runs/study-decisive"),
    results: Results = DECISIVE,
    report: Report = REPORT,
    only: Only = None,
) -> None:
    """Run the decisive study (studies/decisive/plan.md).

    Several processes can share one output folder: each takes the next run that no other process is working on.
    """
    found = _run_decisive(output, results, METHODS, only)
    typer.echo(f"{len(found)} runs are done; wrote {write_report(report, found)}.")


@app.command()
def labels(
    output: Output = Path("runs/study-decisive"),
    results: Results = DECISIVE,
    report: Report = REPORT,
    only: Only = None,
) -> None:
    """Run BFPO with 1 to 100 % of the labels from people, alone and with judges fitted to them.

    Several processes can share one output folder, also with the decisive study, whose machinery this is.
    """
    found = _run_decisive(output, results, ARMS, only)
    typer.echo(f"Wrote {write_labels(report, found)}.")


def _run_decisive(output: Path, results: Path, methods: Mapping[str, Method], only: int | None) -> dict[Job, Any]:
    quiet_libraries()
    number = 0
    while only is None or number < only:
        done = run_next_decisive(output, results, methods=methods)
        if done is None:
            break
        number += 1
        figures = ", ".join(f"{name} {value:.3f}" for name, value in done["figures"].items())
        typer.echo(f"{Job(**done['job']).name}: {figures} ({done['cpu_seconds']:.0f} s)")
    return read_results(results)


@app.command()
def real(
    model: Annotated[str, typer.Option(help="Folder of the chat model, from 'bfpo model smollm2'.")],
    data: Annotated[Path, typer.Option(help="Folder of the development mix of pairs.")],
    suite: Annotated[Path, typer.Option(help="Suite whose prompts are answered.")],
    output: Output = Path("runs/study-real"),
    results: Results = REAL,
    report: Report = REPORT,
    only: Only = None,
) -> None:
    """Run the real-model study (studies/real/plan.md); made for a GPU.

    Several processes can share one output folder: each takes the next run that no other process is working on.
    """
    quiet_libraries()
    load_suite(str(suite))  # so that a fault in it shows before anything trains
    setup, number = RealSetup(model, data, suite, output, results), 0
    while only is None or number < only:
        done = run_next_real(setup)
        if done is None:
            break
        number += 1
        typer.echo(f"{RealJob(**done['job']).name}: {done['seconds']:.0f} s")
    found = read_real(results)
    typer.echo(f"{len(found)} runs are done; wrote {write_real(report, found)}.")


@app.command()
def dial(
    output: Output = Path("runs/study-dial"),
    results: Results = DIAL,
    report: Report = REPORT,
    per_kind: Annotated[int, typer.Option(min=10, help="Prompts of each kind at every place of the dial.")] = 1000,
    seeds: Annotated[int, typer.Option(min=0, help="Seeds of the bounds, from 0.")] = 10,
) -> None:
    """Compare the dial with models trained at its places, and check bounds on prompts not seen before."""
    quiet_libraries()
    places = run_places(output, results, SCALE, per_kind, typer.echo)
    bounds = run_bounds(output, results, SCALE, range(seeds), typer.echo)
    typer.echo(f"Wrote {write_dial(report, places, bounds)}.")


@app.command()
def redteam(
    output: Output = Path("runs/study-redteam"),
    results: Results = REDTEAM,
    report: Report = REPORT,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="Seed to run; repeatable. By default 0, 1, 2.")
    ] = None,
) -> None:
    """Red-team an unaligned model in two rounds without human labels."""
    quiet_libraries()
    found = run_seeds(output, results, Setup(), seeds or range(3), typer.echo)
    typer.echo(f"Wrote {write_red_teaming(report, found)}.")


@app.command()
def quickstart_settings(
    run: Annotated[Path, typer.Argument(help="Folder of a finished quickstart on a real model.")],
    model: Annotated[str, typer.Option(help="The chat model that it began with.")],
    trial: Annotated[str, typer.Option(help=f"One of {', '.join(TRIALS)}.")],
    output: Output = Path("runs/quickstart-settings"),
) -> None:
    """Try other settings of `make quickstart-real` on training requests that are held out."""
    quiet_libraries()
    for name, figures in run_trial(run, model, output, trial).items():
        typer.echo(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))


@app.command()
def pretrain(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for model, tokenizer and record.")],
    seed: Annotated[int, typer.Option(min=0, help="Random seed for corpus, weights and order.")] = 0,
) -> None:
    """Pretrain the microworld's model and its tokenizer from scratch."""
    quiet_libraries()
    plan = Pretraining(seed=seed)
    final = pretrain_model(output, plan, lambda step, loss: typer.echo(f"step {step:5}  loss {loss:.4f}"))
    typer.echo(f"Final loss {final:.4f}; the model and pretraining.json are in {output}.")


if __name__ == "__main__":
    try:
        app()
    except BfpoError as error:
        sys.exit(f"error: {error}")
