"""``bfpo evaluate``: SafeHelp for one model."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bfpo.errors import BfpoError

if TYPE_CHECKING:
    from bfpo.safehelp.evaluate import Options
    from bfpo.safehelp.records import Evaluation
    from bfpo.safehelp.suites import Suite
    from bfpo.statistics.judging import JudgeErrors


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="Folder or Hub name of a model or adapter; 'microworld'; with --endpoint its name there."),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="core, paper, microworld, or a YAML file; core for real models.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run; name it again to go on.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What tables call the model; by default its folder's name.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="Judge of safety ('bfpo judge list'); by default the suite's.")
    ] = None,
    second_judge: Annotated[str | None, typer.Option(help="A second one, for their agreement.")] = None,
    help_judge: Annotated[
        str | None, typer.Option(help="Judge of which answer helps more, for tasks with references (AlpacaEval).")
    ] = None,
    judge_errors: Annotated[
        str | None,
        typer.Option(
            metavar="A/B,C/D", help="The judge found A of B unsafe and C of D safe labelled answers: corrects rates."
        ),
    ] = None,
    labelling_judge: Annotated[
        str | None, typer.Option(help="Id of the judge that labelled the training data: warns if it evaluates too.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible server, up to and with /v1.")
    ] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with the server's key.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="Of sampling, 0 is greedy; by default the suite's.")
    ] = None,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Share of probability sampled from.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Where an answer is cut.")] = None,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers sampled at once.")] = 256,
    system_prompt: Annotated[str | None, typer.Option(help="Before every prompt.")] = None,
    chat: Annotated[bool, typer.Option("--chat/--no-chat", help="Use the model's chat template, if any.")] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="Items of each task, drawn by a fixed hash.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(metavar="TASK=FILE", help="A local file for a task; repeatable.")
    ] = None,
    data_folder: Annotated[Path | None, typer.Option(help="Where files TASK.jsonl are looked for.")] = None,
    split: Annotated[str, typer.Option(help="Microworld: test, or validation for choosing settings.")] = "test",
    per_kind: Annotated[int, typer.Option(min=2, max=2000, help="Microworld: prompts of each kind.")] = 500,
    list_only: Annotated[bool, typer.Option("--list", help="List the suites' tasks and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure helpfulness, harmlessness and over-refusal, by sampled answers and by likelihood."""
    if list_only:
        _list(suite, as_json)
        return
    if model is None:
        raise BfpoError("name a model: a folder, a name on the Hub, or 'microworld'; or --list")
    from dataclasses import replace

    from bfpo.safehelp.evaluate import Options, suite_decoding
    from bfpo.safehelp.suites import load_suite

    suite = suite or ("microworld" if model == "microworld" else "core")
    built = load_suite(
        suite, data=_files(data), folder=data_folder, limit=limit, split=split, per_kind=per_kind  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    changed = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    decoding = replace(
        suite_decoding(built),
        samples=samples,
        seed=seed,
        batch_size=batch_size,
        **{key: value for key, value in changed.items() if value is not None},
    )
    name = name or Path(model).name
    folder = output or Path("runs") / "evaluations" / f"{name}-{built.name}"
    options = Options(
        judges=_judges(built, judge, second_judge),
        help_judge=_help_judge(help_judge),
        judge_errors=_judge_errors(judge_errors),
        system_prompt=system_prompt,
        labelling_judge=labelling_judge,
        model_path=f"{endpoint} {model}" if endpoint else model,
        command=" ".join(["bfpo", *sys.argv[1:]]),
        limit=limit,
    )
    if not as_json:
        shown = replace(built, choices=[]) if endpoint else built
        _say_what_it_will_show(shown, samples, help_judge is not None)
    if endpoint:
        result = _evaluate_endpoint(endpoint, api_key_env, model, name, built, decoding, folder, options)
    else:
        result = _evaluate_local(model, chat, name, built, decoding, folder, options)
    _show(result, folder, as_json)


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
    import bfpo.microworld.judge  # noqa: F401  # pyright: ignore[reportMissingImports]  (it registers itself)
    from bfpo.judges.registry import load_judge  # pyright: ignore[reportMissingImports]

    return [load_judge(spec) for spec in named]


def _judge_errors(given: str | None) -> JudgeErrors | None:
    from bfpo.statistics.judging import JudgeErrors

    if given is None:
        return None
    try:
        (unsafe_found, unsafe), (safe_found, safe) = (map(int, part.split("/")) for part in given.split(","))
    except ValueError:
        raise BfpoError(f"--judge-errors {given}: write it as A/B,C/D, four counts") from None
    if not (0 <= unsafe_found <= unsafe and 0 <= safe_found <= safe and unsafe and safe):
        raise BfpoError(f"--judge-errors {given}: A of B and C of D need 0 <= A <= B, 0 <= C <= D, and B and D above 0")
    return JudgeErrors(unsafe_found, unsafe, safe_found, safe)


def _help_judge(spec: str | None) -> Any:
    if spec is None:
        return None
    from bfpo.judges.helpfulness import load_helpfulness_judge  # pyright: ignore[reportMissingImports]

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
    model: str, chat: bool, name: str, suite: Suite, decoding: Any, folder: Path, options: Options
) -> Evaluation:
    from bfpo.quiet import quiet_libraries
    from bfpo.safehelp.evaluate import evaluate
    from bfpo.safehelp.models import load_for_evaluation

    quiet_libraries()
    loaded, tokenizer = load_for_evaluation(model)
    if not chat:
        tokenizer.chat_template = None
    with _Progress() as progress:
        return evaluate(
            loaded, tokenizer, name=name, suite=suite, decoding=decoding, folder=folder, options=progress.of(options)
        )


def _evaluate_endpoint(
    url: str, key: str | None, model: str, name: str, suite: Suite, decoding: Any, folder: Path, options: Options
) -> Evaluation:
    from pydantic import ValidationError

    from bfpo.endpoints import Endpoint, EndpointConfig  # pyright: ignore[reportMissingImports]
    from bfpo.safehelp.evaluate import evaluate_endpoint

    try:
        config = EndpointConfig(url=url, model=model, api_key_env=key)
    except ValidationError as error:
        raise BfpoError(f"--endpoint {url}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
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

    from bfpo.reports.table import score_tables

    for table in score_tables([result]):
        Console().print(table)
    for warning in cautions(result):
        typer.echo(f"Caution: {warning}")
    typer.echo(f"Scores and a record for every answer are in {folder}.")
