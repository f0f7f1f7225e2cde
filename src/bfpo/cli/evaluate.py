"""``bfpo evaluate``: SafeHelp for one model."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bfpo.cli import evaluate_options as told
from bfpo.errors import BfpoError

if TYPE_CHECKING:
    from bfpo.safehelp.evaluate import Options
    from bfpo.safehelp.records import Evaluation
    from bfpo.safehelp.suites import Suite
    from bfpo.statistics.judge_error import JudgeError


def evaluate(
    model: told.Model = None,
    suite: told.Suite = None,
    output: told.Output = None,
    name: told.Name = None,
    judge: told.Judge = None,
    second_judge: told.SecondJudge = None,
    help_judge: told.HelpJudge = None,
    judge_errors: told.JudgeErrors = None,
    labelling_judge: told.LabellingJudge = None,
    endpoint: told.Endpoint = None,
    api_key_env: told.ApiKeyEnv = None,
    samples: told.Samples = 1,
    temperature: told.Temperature = None,
    top_p: told.TopP = None,
    max_new_tokens: told.MaxNewTokens = None,
    seed: told.Seed = 0,
    batch_size: told.BatchSize = 256,
    system_prompt: told.SystemPrompt = None,
    chat: told.Chat = True,
    limit: told.Limit = None,
    data: told.Data = None,
    data_folder: told.DataFolder = None,
    split: told.Split = "test",
    per_kind: told.PerKind = 500,
    list_only: told.ListOnly = False,
    as_json: told.AsJson = False,
) -> None:
    """Measure helpfulness, harmlessness and over-refusal, by sampled answers and by likelihood."""
    if list_only:
        _list(suite, as_json)
        return
    if model is None:
        raise BfpoError("name a model: a folder, a name on the Hub, or 'microworld'; or --list")
    from bfpo.safehelp.evaluate import Options, suite_decoding
    from bfpo.safehelp.suites import load_suite

    suite = suite or ("microworld" if model == "microworld" else "core")
    built = load_suite(
        suite, data=_files(data), folder=data_folder, limit=limit, split=split, per_kind=per_kind  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    changed = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    decoding = replace(suite_decoding(built), samples=samples, seed=seed, batch_size=batch_size, **_given(changed))
    name = name or Path(model).name
    folder = output or Path("runs") / "evaluations" / f"{name}-{built.name}"
    options = Options(
        judges=_judges(built, judge, second_judge),
        help_judge=_help_judge(help_judge),
        judge_error=_judge_error(judge_errors),
        system_prompt=system_prompt,
        labelling_judge=labelling_judge,
        model_path=f"{endpoint} {model}" if endpoint else model,
        command=" ".join(["bfpo", *sys.argv[1:]]),
        limit=limit,
    )
    if not as_json:
        _say_what_it_will_show(replace(built, choices=[]) if endpoint else built, samples, help_judge is not None)
    run = (model, name, built, decoding, folder, options)
    result = _evaluate_endpoint(endpoint, api_key_env, *run) if endpoint else _evaluate_local(chat, *run)
    _show(result, folder, as_json)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _list(suite: str | None, as_json: bool) -> None:
    from bfpo.safehelp.tasks import list_tasks

    rows = list_tasks(suite)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("suite", "task", "factor", "figure", "licence"):
        table.add_column(column, no_wrap=column != "licence", overflow="fold")
    for row in rows:
        figure = row["metrics"][0] if row["metrics"] else f"{row['judge']} judge" if row["judge"] else ""
        table.add_row(row["suite"], row["task"], row["factor"], figure, row["licence"])
    Console().print(table)
    typer.echo("Sources, revisions, all metrics, chance levels and notes: --json.")


def _files(data: Sequence[str] | None) -> dict[str, Path]:
    files = {}
    for given in data or ():
        task, equals, file = given.partition("=")
        if not (task and equals and file):
            raise BfpoError(f"--data {given}: write it as TASK=FILE")
        files[task] = Path(file)
    return files


def _judges(suite: Suite, first: str | None, second: str | None) -> list[Any]:
    if second and not first and suite.judge is not None:
        raise BfpoError("--second-judge: the suite's own judge is exact; name a first one with --judge to compare two")
    specs = [first or next(iter(suite.judges), None), second or next(iter(suite.judges[1:]), None)]
    named = [spec for spec in specs if spec] if suite.prompts else []
    if not named:
        return []
    from bfpo.judges.registry import load_judge

    return [load_judge(spec) for spec in named]


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


def _help_judge(spec: str | None) -> Any:
    if spec is None:
        return None
    from bfpo.judges.helpfulness import load_helpfulness_judge

    return load_helpfulness_judge(spec)


def _say_what_it_will_show(suite: Suite, samples: int, measures_help: bool) -> None:
    from bfpo.safehelp.planning import CORRELATION, RATE, detectable

    typer.echo(
        f"{suite.name}: {len(suite.prompts):,} prompts with {samples} answer{'s' if samples > 1 else ''} each, "
        f"{len(suite.choices):,} items by likelihood. A comparison with another model on the same prompts finds, in "
        f"80 % of the cases at p < .05 (rates of {RATE:g}, correlation of {CORRELATION:g} assumed), a difference of"
    )
    for row in detectable(suite, measures_help):
        independent = "" if row.clusters == row.prompts else f" in {row.clusters:,} clusters"
        typer.echo(f"  {100 * row.effect:4.1f} points in {row.name} ({row.prompts:,} prompts{independent})")


def _evaluate_local(
    chat: bool, model: str, name: str, suite: Suite, decoding: Any, folder: Path, options: Options
) -> Evaluation:
    from bfpo.models import load_model, load_tokenizer
    from bfpo.quiet import quiet_libraries
    from bfpo.safehelp.evaluate import evaluate

    quiet_libraries()
    loaded, tokenizer = load_model(model), load_tokenizer(model)
    if not chat:
        tokenizer.chat_template = None
    with _Progress() as progress:
        return evaluate(
            loaded, tokenizer, name=name, suite=suite, decoding=decoding, folder=folder, options=progress.of(options)
        )


def _evaluate_endpoint(
    url: str, key: str | None, model: str, name: str, suite: Suite, decoding: Any, folder: Path, options: Options
) -> Evaluation:
    from bfpo.config import validated
    from bfpo.endpoints import Endpoint, EndpointConfig
    from bfpo.safehelp.evaluate import evaluate_endpoint

    config = validated(EndpointConfig, {"url": url, "model": model, "api_key_env": key}, f"--endpoint {url}")
    left_out = dict.fromkeys(task.task for task in suite.tasks if task.runner != "generation")
    if suite.prompts and left_out:
        typer.echo(f"Left out, since a server gives no log-likelihoods: {', '.join(left_out)}.", err=True)
    with _Progress() as progress:
        return evaluate_endpoint(
            Endpoint(config), name=name, suite=suite, decoding=decoding, folder=folder, options=progress.of(options)
        )


class _Progress:
    """A bar on standard error, where that is a terminal."""

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
        self._bar.start()
        self._tasks: dict[str, Any] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def of(self, options: Options) -> Options:
        """The options with this bar to tell."""
        from dataclasses import replace

        def tell(what: str, done: int, total: int) -> None:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total)
            self._bar.update(self._tasks[what], completed=done)

        return replace(options, progress=tell)


def _show(result: Evaluation, folder: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from bfpo.safehelp.cautions import cautions

    if as_json:
        typer.echo(json.dumps({key: asdict(value) for key, value in result.scores.items()}, indent=2))
        return
    from rich.console import Console

    from bfpo.reports.terminal import score_tables

    for table in score_tables([result]):
        Console().print(table)
    for warning in cautions(result):
        typer.echo(f"Caution: {warning}")
    typer.echo(f"Scores and a record for every answer are in {folder}.")
