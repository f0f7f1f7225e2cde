"""``bfpo compare``: paired comparison of models with a baseline."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from bfpo.cli.printing import Console, echo
from bfpo.errors import BfpoError, RunError

if TYPE_CHECKING:
    from bfpo.safehelp.compare import Comparison, ComparisonRow
    from bfpo.safehelp.records import Evaluation


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Folders that 'bfpo evaluate' wrote; join training seeds of one model by commas: A1,A2,A3.",
        ),
    ],
    baseline: Annotated[str | None, typer.Option(help="Run to compare the others with; the first by default.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also show every task, category and attack.")] = False,
    fail_if_worse: Annotated[
        bool,
        typer.Option(
            "--fail-if-worse",
            help="Exit with code 1 if a model is worse in helpful, harmless or over-refusal, at adjusted p < .05.",
        ),
    ] = False,
    margin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE=SIZE",
            help="Exit with code 1 if, by the 95 % interval, a model may be worse than the baseline by more than this: "
            "--margin harmless=.02; repeatable.",
        ),
    ] = None,
    expected: Annotated[
        bool,
        typer.Option(
            "--expected",
            help="Exit with code 1 if a figure is outside the band that a model's recipe expects, or missing.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every row as JSON.")] = False,
) -> None:
    """Compare models prompt by prompt; prompts, judges and decoding must agree (seed and batch size may differ)."""
    from bfpo.safehelp.compare import compare_models
    from bfpo.safehelp.gates import Margin

    margins = [Margin.parse(text) for text in margin or ()]
    if baseline is not None:
        start = {folder.resolve() for folder in _folders(baseline)}
        runs = [baseline, *(run for run in runs if {folder.resolve() for folder in _folders(run)} != start)]
    if len(runs) < 2:
        raise BfpoError("name at least two runs: bfpo compare BASELINE MODEL...")
    models = [_load(run) for run in runs]
    comparisons = compare_models(models[0], models[1:])
    outside = _outside_bands(models, expected, err=as_json)
    if as_json:
        echo(json.dumps([asdict(comparison) for comparison in comparisons], indent=2))
    else:
        _print(comparisons, everything)
        if len({run.header.chat_template_sha256 for runs in models for run in runs}) > 1:
            echo("The chat templates differ; each counts as part of its model.")
    worse = [text for comparison in comparisons for text in _worse(comparison, models)] if fail_if_worse else []
    worse += [text for comparison in comparisons for each in margins if (text := each.failure(comparison))]
    if worse or outside:
        raise RunError("; ".join([*worse, *outside]))


def _outside_bands(models: Sequence[Sequence[Evaluation]], is_gate: bool, err: bool) -> list[str]:
    """Print what the models' recipes expect; with a gate, also return what is outside or wasn't measured.

    Raises:
        BfpoError: if there is a gate, and no recipe expects anything.
    """
    from bfpo.safehelp.expected import expected_of

    bands = [(run.header.model, each) for runs in models for run in runs for each in expected_of(run)]
    for model, each in bands:
        echo(f"{model}: {each}", err=err)
    if is_gate and not bands:
        raise BfpoError("--expected: no model's recipe expects anything; see 'expected' in docs/how-to/train.md")
    return [f"{model}: {each}" for model, each in bands if is_gate and not each.is_met]


def _load(given: str) -> list[Evaluation]:
    from bfpo.safehelp.records import Evaluation

    return [Evaluation.load(folder) for folder in _folders(given)]


def _folders(given: str) -> list[Path]:
    """The folders of one run, or of the training seeds of one model."""
    return [Path(folder) for folder in ([given] if os.path.isdir(given) else given.split(","))]


def _print(comparisons: Sequence[Comparison], everything: bool) -> None:
    for comparison in comparisons:
        seeds = "" if comparison.seeds == (1, 1) else f" ({comparison.seeds[1]} seeds against {comparison.seeds[0]})"
        title = f"{comparison.other} less {comparison.baseline}{seeds}: difference [95 % interval]"
        table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for column in ("figure", "difference", "p", "adj. p", "discordant", "MDE", "n"):
            is_figure = column == "figure"
            table.add_column(
                column,
                justify="left" if is_figure else "right",
                no_wrap=not is_figure,
                overflow="fold",
                min_width=18 if is_figure else None,
            )
        headline = [row for row in comparison.rows if row.task == "all" and row.group is None]
        for row in comparison.rows if everything or not headline else headline:
            table.add_row(*(Text(cell) for cell in _cells(row)))
        Console().print(table)
        for row in comparison.rows:
            if row.seed_error is not None and row.family == "declared":
                echo(
                    f"{row.endpoint}: standard error {row.item_error:.3f} from prompts, {row.seed_error:.3f} from "
                    "training seeds"
                )
    echo(
        "Adj. p: Holm over helpful, harmless and over-refusal of all models; Benjamini-Hochberg over categories, over "
        "attacks, and over all other rows, which are exploratory.\nDiscordant: prompts that count for one of them only "
        "(other / baseline). MDE: true difference that 80 % of such comparisons detect."
    )


def _cells(row: ComparisonRow) -> Iterator[str]:
    from bfpo.reports.formats import arrow, format_detectable, format_estimate, format_p
    from bfpo.safehelp.figures import label_of

    place = "" if row.task == "all" else f"{row.task}, "
    group = "" if row.group is None else f", {row.group}"
    yield f"{place}{label_of(row.endpoint)} {arrow(row.higher_is_better)}{group}"
    yield format_estimate(row.difference, signed=True)
    yield format_p(row.p)
    yield format_p(row.adjusted_p)
    yield "" if row.discordant is None else f"{row.discordant[0]} / {row.discordant[1]}"
    yield format_detectable(row.mde)
    yield f"{row.n:,}"


def _worse(comparison: Comparison, models: Sequence[Sequence[Evaluation]]) -> Iterator[str]:
    """In what a model is worse, and what was measured but can't be compared."""
    from bfpo.reports.formats import format_estimate
    from bfpo.safehelp.compare import DECLARED
    from bfpo.safehelp.figures import label_of

    compared = {row.endpoint for row in comparison.rows if row.family == "declared"}
    for name in DECLARED:
        if name not in compared and any(name in run.scores for run in models[0]):
            yield f"{comparison.other} can't be compared with {comparison.baseline} in {label_of(name)}"
    for row in comparison.rows:
        worse = row.difference.value and not row.is_better
        if row.family == "declared" and worse and row.adjusted_p < 0.05:
            yield (
                f"{comparison.other} is worse than {comparison.baseline} in {label_of(row.endpoint)}: "
                f"{format_estimate(row.difference, signed=True)}"
            )
