"""``bfpo evaluate``: SafeHelp for one model."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from bfpo.cli import evaluate_options as options
from bfpo.cli.evaluate_options import given
from bfpo.cli.generators import check_whole, load_generator, progress_bar
from bfpo.cli.printing import Console, echo, print_spending, print_work
from bfpo.errors import BfpoError, RunError
from bfpo.files import check_exists
from bfpo.model_names import place_of

if TYPE_CHECKING:
    from bfpo.generation.protocol import Decoding, Generator
    from bfpo.generation.recorded_answers import RecordedAnswers
    from bfpo.safehelp.gates import Requirement
    from bfpo.safehelp.records import Evaluation
    from bfpo.safehelp.suites import Suite


def evaluate(
    model: options.Model = None,
    suite: options.Suite = None,
    output: options.Output = None,
    name: options.Name = None,
    judge: options.Judge = None,
    second_judge: options.SecondJudge = None,
    refusal_judge: options.RefusalJudge = None,
    helpfulness_judge: options.HelpfulnessJudge = None,
    judge_errors: options.JudgeErrors = None,
    labeling_judge: options.LabelingJudge = None,
    allow_labeling_judge: options.AllowLabelingJudge = False,
    endpoint: options.Endpoint = None,
    api_key_env: options.ApiKeyEnv = None,
    engine: options.Engine = None,
    answers: options.Answers = None,
    samples: options.Samples = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    max_new_tokens: options.MaxNewTokens = None,
    seed: options.Seed = None,
    batch_size: options.BatchSize = None,
    system_prompt: options.SystemPrompt = None,
    chat: options.Chat = True,
    limit: options.Limit = None,
    shard: options.ShardOption = None,
    merge: options.Merge = None,
    task: options.TaskNames = None,
    data: options.Data = None,
    data_folder: options.DataFolder = None,
    skip_missing: options.SkipMissing = False,
    split: options.Split = None,
    per_kind: options.PerKind = None,
    world: options.World = None,
    require: options.Require = None,
    list_only: options.ListOnly = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure a model's helpfulness, harmlessness and over-refusal, by sampled answers and by likelihood."""
    if list_only:
        _list(suite, as_json)
        return
    requirements = _requirements(require)
    made_here = given(seed=seed, batch_size=batch_size)
    of_model = given(api_key_env=api_key_env, no_chat=not chat or None, engine=engine)
    _check_source(model, answers, endpoint, of_model, made_here)
    _check_inputs(model, answers, endpoint, [judge, second_judge, refusal_judge])
    ways = _ways(temperature, top_p, given(samples=samples, max_new_tokens=max_new_tokens) | made_here)
    loaded = _load_suite(
        suite or ("microworld" if model == "microworld" else "core"), data, folder=data_folder, limit=limit, tasks=task,
        skip_missing=skip_missing, split=split, per_kind=per_kind, world=world,
    )  # fmt: skip
    judges = _judge_settings(loaded, judge, second_judge, refusal_judge, helpfulness_judge, judge_errors)
    settings = {"name": name or Path(model or str(answers)).name} | _parts(shard, merge, ways, requirements, engine)
    settings |= {"labeling_judge": labeling_judge, "allow_labeling_judge": allow_labeling_judge, "limit": limit}
    if answers is not None:
        generator, ways = _recorded(answers, loaded, system_prompt, ways), [{}]
    else:
        generator = load_generator(str(model), endpoint, api_key_env, system_prompt, chat=chat, engine=engine)
    _conclude(_measured(generator, loaded, output, ways, judges | settings, as_json), requirements, as_json)


def _measured(
    generator: Generator,
    suite: Suite,
    output: Path | None,
    ways: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    as_json: bool,
) -> dict[Path, Evaluation]:
    """Runs of what the generator can run of a suite, by folder; beforehand, which differences they can show."""
    suite = _runnable(suite, generator)
    if not as_json:
        samples = ways[0].get("samples") or generator.defaults(suite.decoding).samples
        _print_detectable(suite, samples, settings["helpfulness_judge"] is not None)
    folder = output or Path("runs") / "evaluations" / f"{settings['name']}-{suite.name}"
    results = _run_ways(generator, suite, folder, ways, settings)
    print_spending(generator)
    print_work(*settings["judges"], settings["refusal_judge"], settings["helpfulness_judge"])
    return results


def _parts(
    shard: str | None,
    merge: Sequence[Path] | None,
    ways: Sequence[Any],
    requirements: Sequence[Requirement],
    engine: str | None,
) -> dict[str, Any]:
    """The part to make, or the parts to merge."""
    from bfpo.shards import Shard

    if shard is None and merge is None:
        return {}
    check_whole(engine, shard)
    if len(ways) > 1 or (shard and (merge or requirements)):
        raise BfpoError(
            "--shard and --merge: take one of them, with one way to sample; --require only works when parts are merged"
        )
    return {"shard": Shard.parse(shard) if shard else None, "merge": merge or ()}


def _ways(
    temperature: Sequence[float] | None, top_p: Sequence[float] | None, always: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What was given of every way to sample: each temperature with each top-p."""
    grid = product(dict.fromkeys(temperature or [None]), dict.fromkeys(top_p or [None]))
    return [{**given(temperature=first, top_p=second), **always} for first, second in grid]


def _run_ways(
    generator: Generator, suite: Suite, folder: Path, ways: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[Path, Evaluation]:
    """A run for every way to sample, by its folder; one way alone is in the given folder."""
    if len(ways) > 1 and not suite.prompts:
        raise BfpoError(f"several ways to sample: no task of suite {suite.name!r} here has prompts to answer")
    defaults = generator.defaults(suite.decoding)
    results: dict[Path, Evaluation] = {}
    for stated in ways:
        way = _way(stated) if len(ways) > 1 else ""
        own = {"decoding": _decoding(defaults, stated), "name": f"{settings['name']} {way}".rstrip()}
        place = folder / way.replace(" ", "-")
        # Items by likelihood are part of each, so that it can be compared with any other run of the suite.
        results[place] = _run(generator, suite, place, {**settings, **own})
    return results


def _way(stated: Mapping[str, Any]) -> str:
    """What one run of several is called after: "temperature 0.7" or "temperature 0.7 top-p 0.9"."""
    return " ".join(
        f"{option.replace('_', '-')} {stated[option]:g}" for option in ("temperature", "top_p") if option in stated
    )


def _requirements(texts: Sequence[str] | None) -> list[Requirement]:
    from bfpo.safehelp.gates import Requirement

    return [Requirement.parse(text) for text in texts or ()]


def _conclude(results: Mapping[Path, Evaluation], requirements: Sequence[Requirement], as_json: bool) -> None:
    """Print the results, then fail if one doesn't meet a requirement."""
    _print_results(results, as_json)
    failures = [
        f"{result.model}: {text}" if len(results) > 1 else text
        for result in results.values()
        for requirement in requirements
        if (text := requirement.failure(result))
    ]
    if failures:
        raise RunError("; ".join(failures))


def _judge_settings(
    suite: Suite,
    first: str | None,
    second: str | None,
    of_refusals: str | None,
    of_helpfulness: str | None,
    errors: str | None,
) -> dict[str, Any]:
    """The judges, after a check that the suite has something for each of them to judge."""
    from bfpo.judges.registry import load_judge

    if of_helpfulness and not any(item.reference is not None for item in suite.prompts):
        raise BfpoError(f"--helpfulness-judge: no task of suite {suite.name!r} here compares answers with references")
    for name, spec in (("judge", first), ("second-judge", second), ("refusal-judge", of_refusals)):
        if spec and not suite.prompts:
            raise BfpoError(f"--{name}: no task of suite {suite.name!r} here has answers to judge")
    return {
        "judges": _judges(suite, first, second),
        "refusal_judge": None if of_refusals is None else load_judge(of_refusals),
        "helpfulness_judge": _helpfulness_judge(of_helpfulness),
        "judge_error": options.error_rates(errors),
    }


def _decoding(defaults: Decoding, stated: Mapping[str, Any]) -> Decoding:
    wanted = replace(defaults, **stated)
    decoding = wanted.without_repeats()
    if decoding != wanted:
        echo(f"At temperature 0 all {wanted.samples} answers to a prompt are the same: sampling one.", err=True)
    return decoding


def _check_source(
    model: str | None,
    answers: Path | None,
    endpoint: str | None,
    of_model: Mapping[str, Any],
    made_here: Mapping[str, Any],
) -> None:
    """Refuse a run of nothing, and options that a file of answers, a local model or a server doesn't read."""
    if model is None and answers is None:
        raise BfpoError("name a model: a folder, a name on the Hub, or 'microworld'; or --answers, or --list")
    unread: list[str] = []
    if answers is not None:
        unread = [*(["endpoint"] if endpoint else []), *of_model, *made_here]
    elif endpoint is None:
        unread = [name for name in of_model if name == "api_key_env"]
    else:
        unread = [name for name in of_model if name in ("no_chat", "engine")]
    if unread:
        source = "--answers" if answers is not None else "--endpoint" if endpoint else "a local model"
        raise BfpoError(f"--{unread[0].replace('_', '-')}: has no effect with {source}; leave it out")


def _check_inputs(model: str | None, answers: Path | None, endpoint: str | None, judges: Sequence[str | None]) -> None:
    """Refuse paths to nothing before a suite is loaded, which may come from the Hub."""
    from bfpo.judges.registry import check_judge

    if answers is not None:
        check_exists(answers)
    elif endpoint is None:
        place_of(str(model))
    for spec in filter(None, judges):
        check_judge(spec)


def _recorded(
    file: Path, suite: Suite, system_prompt: str | None, ways: Sequence[Mapping[str, Any]]
) -> RecordedAnswers:
    """Answers of a file, made in the one way that is stated."""
    from bfpo.generation.recorded_answers import RecordedAnswers

    if len(ways) > 1:
        raise BfpoError("--answers: they were made in one way; state one --temperature and one --top-p, or none")
    (stated,) = ways
    prompts = [item.prompt for item in suite.prompts]
    found = RecordedAnswers.load(
        file, prompts, samples=stated.get("samples"), system_prompt=system_prompt, stated=stated
    )
    if found.unused:
        echo(
            f"{file}: {found.unused:,} answers aren't used: to other prompts, or more than every prompt has.", err=True
        )
    return found


def _runnable(suite: Suite, generator: Generator) -> Suite:
    """The tasks that the generator can run; the others, and those without data, are named on standard error."""
    from bfpo.safehelp.evaluate import runnable

    for task, reason in suite.left_out.items():
        echo(f"Left out: {task}, because {reason}.", err=True)
    suite, left_out = runnable(suite, generator)
    if left_out:
        echo(f"Skipped, because only local models give log-likelihoods: {', '.join(left_out)}.", err=True)
    return suite


def _run(generator: Generator, suite: Suite, folder: Path, settings: Mapping[str, Any]) -> Evaluation:
    from bfpo.safehelp.evaluate import evaluate as run_evaluation

    command = shlex.join(["bfpo", *sys.argv[1:]])
    with progress_bar() as progress:
        result = run_evaluation(generator, suite, folder=folder, command=command, progress=progress, **settings)
    for what, count in getattr(generator, "counts", {}).items():
        echo(f"{settings['name']}: {what}: {count:,}", err=True)
    return result


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


def _load_suite(suite: str, data: Sequence[str] | None, **options: Any) -> Suite:
    """The suite, with data from these files (TASK=FILE)."""
    from bfpo.safehelp.suites import load_suite

    files: dict[str, Path] = {}
    for pair in data or ():
        task, equals, file = pair.partition("=")
        if not (task and equals and file):
            raise BfpoError(f"--data {pair}: write it as TASK=FILE")
        files[task] = Path(file)
    return load_suite(suite, data=files, **options)


def _judges(suite: Suite, first: str | None, second: str | None) -> list[Any]:
    from bfpo.judges.registry import load_judge

    if second and not first and suite.judge is not None:
        raise BfpoError("--second-judge: the suite's own judge is exact; name a first one with --judge to compare two")
    specs = [first or next(iter(suite.judges), None), second or next(iter(suite.judges[1:]), None)]
    return [load_judge(spec) for spec in specs if spec and suite.prompts]


def _helpfulness_judge(spec: str | None) -> Any:
    if spec is None:
        return None
    from bfpo.judges.helpfulness import load_helpfulness_judge

    return load_helpfulness_judge(spec)


def _print_detectable(suite: Suite, samples: int, measures_help: bool) -> None:
    from bfpo.safehelp.planning import CORRELATION, RATE, detectable

    by_lm_eval = sum(task.lm_eval is not None for task in suite.tasks)
    work = [
        (len(suite.prompts), f"prompts with {samples} answer{'s' if samples > 1 else ''} each"),
        (len(suite.choices), "items by likelihood"),
        (by_lm_eval, "task run by lm-eval" if by_lm_eval == 1 else "tasks run by lm-eval"),
    ]
    echo(f"{suite.name}: {', '.join(f'{number:,} {what}' for number, what in work if number)}.")
    rows = detectable(suite, measures_help)
    if rows:
        echo(
            "A comparison with another model on the same prompts detects, in 80 % of the cases at p < .05 (assuming "
            f"rates of {RATE:g}, correlation of {CORRELATION:g}), a difference of"
        )
    for row in rows:
        independent = "" if row.clusters == row.prompts else f" in {row.clusters:,} clusters"
        size = "no size (n is too small)" if row.effect is None else f"{100 * row.effect:4.1f} points"
        echo(f"  {size} in {row.name} ({row.prompts:,} prompts{independent})")


def _print_results(results: Mapping[Path, Evaluation], as_json: bool) -> None:
    from bfpo.safehelp.cautions import cautions

    ((folder, first), *_) = results.items()
    if first.header.shard:
        part, answers = first.header.shard, len(first.generations)
        made = {"shard": part, "answers": answers, "likelihoods": len(first.likelihoods), "folder": str(folder)}
        told = f"Part {part} with {answers:,} answers is in {folder}; merge (--merge) once all parts are done."
        echo(json.dumps(made) if as_json else told)
        return
    if as_json:
        scores = {r.model: {key: asdict(value) for key, value in r.scores.items()} for r in results.values()}
        echo(json.dumps(scores if len(scores) > 1 else next(iter(scores.values())), indent=2))
    else:
        from bfpo.reports.formats import format_estimate
        from bfpo.reports.terminal import score_tables
        from bfpo.safehelp.figures import CORRECTED

        for table in score_tables(list(results.values())):
            Console().print(table)
        for result in results.values():
            if corrected := result.scores.get(CORRECTED):
                among = f"{result.model}: " if len(results) > 1 else ""
                shown = f"{format_estimate(corrected)}, n = {corrected.n:,}"
                echo(f"{among}attack success, corrected for the judge's error: {shown}")
    warnings: dict[str, list[str]] = {}
    for result in results.values():
        for warning in cautions(result):
            warnings.setdefault(warning, []).append(result.model)
    for warning, models in warnings.items():
        among = f" ({', '.join(models)})" if len(results) > 1 else ""
        echo(f"Caution: {warning}{among}", err=as_json)
    if not as_json:
        echo(f"Scores and a record for every answer are in {', '.join(map(str, results))}.")
