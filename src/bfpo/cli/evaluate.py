"""``bfpo evaluate``: SafeHelp for one model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import Progress, TaskID
from rich.table import Table

from bfpo.cli import evaluate_options as options
from bfpo.cli.printing import Console, echo
from bfpo.errors import BfpoError

if TYPE_CHECKING:
    from bfpo.generation.protocol import Generator
    from bfpo.safehelp.records import Evaluation
    from bfpo.safehelp.suites import Suite
    from bfpo.statistics.judge_error import JudgeError


def evaluate(
    model: options.Model = None,
    suite: options.Suite = None,
    output: options.Output = None,
    name: options.Name = None,
    judge: options.Judge = None,
    second_judge: options.SecondJudge = None,
    helpfulness_judge: options.HelpfulnessJudge = None,
    judge_errors: options.JudgeErrors = None,
    labeling_judge: options.LabelingJudge = None,
    endpoint: options.Endpoint = None,
    api_key_env: options.ApiKeyEnv = None,
    samples: options.Samples = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    max_new_tokens: options.MaxNewTokens = None,
    seed: options.Seed = None,
    batch_size: options.BatchSize = None,
    system_prompt: options.SystemPrompt = None,
    chat: options.Chat = True,
    limit: options.Limit = None,
    data: options.Data = None,
    data_folder: options.DataFolder = None,
    split: options.Split = "test",
    per_kind: options.PerKind = 500,
    list_only: options.ListOnly = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure a model's helpfulness, harmlessness and over-refusal, by sampled answers and by likelihood."""
    if list_only:
        _list(suite, as_json)
        return
    if model is None:
        raise BfpoError("name a model: a folder, a name on the Hub, or 'microworld'; or --list")
    from bfpo.safehelp.suites import load_suite

    suite = suite or ("microworld" if model == "microworld" else "core")
    loaded = load_suite(
        suite, data=_files(data), folder=data_folder, limit=limit, split=split, per_kind=per_kind  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    judges, comparing_judge = _judges(loaded, judge, second_judge), _helpfulness_judge(helpfulness_judge)
    error = _judge_error(judge_errors)
    generator = _generator(model, endpoint, api_key_env, system_prompt, chat=chat)
    loaded = _runnable(loaded, generator)
    decoding = replace(
        loaded.decoding,
        **_given(
            samples=samples, temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed,
            batch_size=batch_size,
        ),
    )  # fmt: skip
    name = name or Path(model).name
    folder = output or Path("runs") / "evaluations" / f"{name}-{loaded.name}"
    _run(
        generator, loaded, folder, as_json, name=name, decoding=decoding, judges=judges,
        helpfulness_judge=comparing_judge, judge_error=error, labeling_judge=labeling_judge, limit=limit,
    )  # fmt: skip


def _runnable(suite: Suite, generator: Generator) -> Suite:
    """The tasks that the generator can run; the others are named on standard error."""
    from bfpo.safehelp.evaluate import runnable

    suite, left_out = runnable(suite, generator)
    if left_out:
        echo(f"Skipped, because a server gives no log-likelihoods: {', '.join(left_out)}.", err=True)
    return suite


def _run(generator: Generator, suite: Suite, folder: Path, as_json: bool, **settings: Any) -> None:
    from bfpo.safehelp.evaluate import evaluate as run_evaluation

    if not as_json:
        _print_detectable(suite, settings["decoding"].samples, settings["helpfulness_judge"] is not None)
    command = " ".join(["bfpo", *sys.argv[1:]])
    with _progress_bar() as progress:
        result = run_evaluation(generator, suite, folder=folder, command=command, progress=progress, **settings)
    _print_result(result, folder, as_json)


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _list(suite: str | None, as_json: bool) -> None:
    from bfpo.safehelp.tasks import list_tasks

    rows = list_tasks(suite)
    if as_json:
        echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("suite", "task", "factor", "figure", "license"):
        table.add_column(column, no_wrap=column != "license", overflow="fold")
    for row in rows:
        figure = row["metrics"][0] if row["metrics"] else f"{row['judge']} judge" if row["judge"] else ""
        table.add_row(row["suite"], row["task"], row["factor"], figure, row["license"])
    Console().print(table)
    echo("--json adds sources, revisions, all metrics, chance levels and notes.")


def _files(data: Sequence[str] | None) -> dict[str, Path]:
    files = {}
    for pair in data or ():
        task, equals, file = pair.partition("=")
        if not (task and equals and file):
            raise BfpoError(f"--data {pair}: write it as TASK=FILE")
        files[task] = Path(file)
    return files


def _judges(suite: Suite, first: str | None, second: str | None) -> list[Any]:
    from bfpo.judges.registry import load_judge

    if second and not first and suite.judge is not None:
        raise BfpoError("--second-judge: the suite's own judge is exact; name a first one with --judge to compare two")
    specs = [first or next(iter(suite.judges), None), second or next(iter(suite.judges[1:]), None)]
    return [load_judge(spec) for spec in specs if spec and suite.prompts]


def _judge_error(given: str | None) -> JudgeError | None:
    from bfpo.statistics.judge_error import JudgeError

    if given is None:
        return None
    try:
        (unsafe_found, unsafe), (safe_found, safe) = (map(int, part.split("/")) for part in given.split(","))
    except ValueError:
        raise BfpoError(f"--judge-errors {given}: write it as A/B,C/D, four counts") from None
    if not (0 <= unsafe_found <= unsafe and 0 <= safe_found <= safe and unsafe and safe):
        raise BfpoError(f"--judge-errors {given}: A of B and C of D need 0 <= A <= B, 0 <= C <= D, and B and D above 0")
    return JudgeError.from_counts(unsafe_found, unsafe, safe_found, safe)


def _helpfulness_judge(spec: str | None) -> Any:
    if spec is None:
        return None
    from bfpo.judges.helpfulness import load_helpfulness_judge

    return load_helpfulness_judge(spec)


def _print_detectable(suite: Suite, samples: int, measures_help: bool) -> None:
    from bfpo.safehelp.planning import CORRELATION, RATE, detectable

    echo(
        f"{suite.name}: {len(suite.prompts):,} prompts with {samples} answer{'s' if samples > 1 else ''} each, "
        f"{len(suite.choices):,} items by likelihood. A comparison with another model on the same prompts detects, in "
        f"80 % of the cases at p < .05 (assuming rates of {RATE:g}, correlation of {CORRELATION:g}), a difference of"
    )
    for row in detectable(suite, measures_help):
        independent = "" if row.clusters == row.prompts else f" in {row.clusters:,} clusters"
        echo(f"  {100 * row.effect:4.1f} points in {row.name} ({row.prompts:,} prompts{independent})")


def _generator(model: str, url: str | None, key: str | None, system_prompt: str | None, *, chat: bool) -> Generator:
    if url:
        from bfpo.generation.endpoint_generator import EndpointGenerator

        return EndpointGenerator.connect(url, model, system_prompt=system_prompt, api_key_env=key)
    from bfpo.generation.local_generator import LocalGenerator
    from bfpo.quiet import quiet_libraries

    quiet_libraries()
    return LocalGenerator.load(model, system_prompt, chat=chat)


@contextmanager
def _progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars on standard error, one per stage, if that is a terminal."""
    stages: dict[str, TaskID] = {}
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:

        def update(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = bar.add_task(stage, total=total)
            bar.update(stages[stage], completed=done)

        yield update


def _print_result(result: Evaluation, folder: Path, as_json: bool) -> None:
    from bfpo.safehelp.cautions import cautions

    if as_json:
        echo(json.dumps({key: asdict(value) for key, value in result.scores.items()}, indent=2))
    else:
        from bfpo.reports.terminal import score_tables

        for table in score_tables([result]):
            Console().print(table)
    for warning in cautions(result):
        echo(f"Caution: {warning}", err=as_json)
    if not as_json:
        echo(f"Scores and a record for every answer are in {folder}.")
