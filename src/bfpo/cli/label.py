"""``bfpo label``: fill in missing labels with judges, or fit the labeling function."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bfpo.cli.data import Rename, Revision, Split, reading
from bfpo.cli.judge import CacheOption
from bfpo.cli.label_fitting import fit_and_print
from bfpo.cli.printing import echo, print_work
from bfpo.errors import BfpoError
from bfpo.files import check_exists, check_not_overwritten
from bfpo.labeling import RANDOM_SHARE

if TYPE_CHECKING:
    from bfpo.judges.preference import HelpfulnessJudge
    from bfpo.judges.verdict import Judge
    from bfpo.labeling.filling import LabeledSet, LabelingReport

RandomShare = Annotated[
    float,
    typer.Option(help="Share of the queue that is drawn at random; the judges' errors are estimated from this part."),
]
# Parameters that fitting reads; labeling reads all but the first two.
_OF_FITTING = ("fit_preference", "order_error", "output", "as_json")

OrderError = Annotated[
    float, typer.Option(help="Share of the judged pairs whose order of helpfulness is wrong, for --fit-preference.")
]
Judgments = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Also write this number of pairs for overall judgments, with the same quota for every safety cell, to "
        "NAME.judgments.jsonl; fill them in, then pass the file to --fit-preference.",
    ),
]
Answers = Annotated[
    list[str] | None,
    typer.Option(help="Queue file of an earlier run, with 'asks' filled in by people; repeatable."),
]

ShardOption = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Only judge part I of N of the set, into --cache; writes no output."),
]
Merge = Annotated[
    list[Path] | None,
    typer.Option(help="Cache of a part (--shard), whose verdicts are copied into --cache first; repeatable."),
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="ENGINE",
        help="What runs --judge: this process (default), ray (a cluster here, or at $RAY_ADDRESS), or ray:HOST:PORT.",
    ),
]
# Parameters that judging a part reads.
_OF_SHARDS = (
    "preferences", "judge", "helpfulness_judge", "shard", "engine", "cache", "split", "revision", "rename", "as_json",
)  # fmt: skip

Seed = Annotated[
    int,
    typer.Option(
        min=0, help="Random seed for the queue's random part, the pairs of --judgments, and the calibration's folds."
    ),
]


def label(
    context: typer.Context,
    preferences: Annotated[
        str | None,
        typer.Argument(help="A file or saved data set, a name from 'bfpo data list', or a data set on the Hub."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSONL file to write (JSON for a fitted labeling).")
    ] = None,
    judge: Annotated[list[str] | None, typer.Option("--judge", help="Safety judge; repeatable.")] = None,
    helpfulness_judge: Annotated[
        str | None, typer.Option(help="Helpfulness judge, for pairs without an order.")
    ] = None,
    answers: Answers = None,
    random_share: RandomShare = RANDOM_SHARE,
    seed: Seed = 0,
    labeling: Annotated[
        Path | None, typer.Option(help="File that --fit-preference wrote; its labeling function ranks the queue.")
    ] = None,
    cache: CacheOption = None,
    shard: ShardOption = None,
    merge: Merge = None,
    engine: Engine = None,
    split: Split = "train",
    revision: Revision = None,
    rename: Rename = None,
    fit_preference: Annotated[
        Path | None, typer.Option(help="Label nothing; fit b1 and alpha to this file of overall judgments.")
    ] = None,
    order_error: OrderError = 0.0,
    judgments: Judgments = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Fill in missing labels with judges and queue rows for people, or fit BFPO's labeling function (b1, alpha)."""
    _check_mode(context, fit_preference is not None)
    if fit_preference is not None:
        fit_and_print(fit_preference, output, order_error, as_json)
        return
    how = reading(preferences or "", split, revision, rename)
    _check_inputs(preferences, [*(answers or ()), *([labeling] if labeling else ())], how)
    if shard is not None:
        _check_shard(context, preferences)
        with _judges(judge or [], engine) as judges:
            _judge_shard(str(preferences), judges, _order_judge(helpfulness_judge), shard, cache, how, as_json)
        return
    if preferences is None or output is None:
        raise BfpoError("name what to label and the file to write: bfpo label pairs.jsonl --judge J -o out.jsonl")
    from bfpo.labeling.fitted import load_labeling

    _check_outputs(output, [*(judge or ()), helpfulness_judge], [cache, *(merge or ())], labeling)
    options: dict[str, Any] = {"random_share": random_share, "judgments": judgments, "seed": seed}
    options |= {"order_judge": _order_judge(helpfulness_judge), "answers": answers or ()}
    options["labeling"] = load_labeling(labeling).preference if labeling else None
    with _judges(judge or [], engine) as judges:
        labeled = _label(preferences, judges, output, cache, merge or [], options | {"reading": how})
    print_work(*judges, options["order_judge"])
    _print(labeled, output, judgments, as_json)


def _check_inputs(preferences: str | None, files: Sequence[str | Path], how: Mapping[str, Any]) -> None:
    """Refuse files that don't exist, before judges are loaded."""
    from bfpo.preferences.reading import open_source

    if preferences is not None and not os.path.exists(preferences):
        open_source(preferences, how["split"], how["revision"])
    for file in files:
        check_exists(file)


def _check_outputs(
    output: Path, judges: Sequence[str | None], caches: Sequence[Path | None], labeling: Path | None
) -> None:
    """Refuse outputs that would replace a file of a judge, a cache or the labeling."""
    from bfpo.labeling.run import judgments_file, queue_file

    read = [(name, "a judge's file") for name in judges]
    others = [*((name, "a cache of verdicts") for name in caches), (labeling, "the labeling")]
    for path in (output, queue_file(output), judgments_file(output)):
        check_not_overwritten(path, [*read, *others])


def _order_judge(spec: str | None) -> HelpfulnessJudge | None:
    from bfpo.judges.helpfulness import load_helpfulness_judge

    return None if spec is None else load_helpfulness_judge(spec)


@contextmanager
def _judges(specs: Sequence[str], engine: str | None) -> Iterator[list[Judge]]:
    """The judges, in this process or on a Ray cluster, which the context is connected to."""
    from bfpo.judges.registry import load_judge

    if engine is None:
        yield [load_judge(spec) for spec in specs]
        return
    name, _, address = engine.partition(":")
    if name != "ray":
        raise BfpoError(f"there is no engine {engine!r}: write ray or ray:HOST:PORT, or leave --engine out")
    if not specs:
        raise BfpoError("--engine runs judges: name one with --judge")
    from bfpo.judges.ray_judge import RayJudge
    from bfpo.ray_cluster import ray_cluster

    with ray_cluster(address):
        yield [RayJudge.load(spec) for spec in specs]


def _label(
    preferences: str, judges: list[Judge], output: Path, cache: Path | None, merge: list[Path], options: dict[str, Any]
) -> LabeledSet:
    """Label with a verdict cache, into which those of the parts go first."""
    from bfpo.judges.cache import VerdictCache, default_cache_file
    from bfpo.labeling.run import label as label_set

    with VerdictCache(cache or default_cache_file()) as verdicts:
        for file in merge:
            echo(f"{file}: took {verdicts.take(file):,} verdicts", err=True)
        labeled = label_set(preferences, judges, output, cache=verdicts, **options)
        if merge and verdicts.added:
            echo(f"warning: {verdicts.added:,} verdicts were in none of the parts, so judges were asked", err=True)
        return labeled


def _check_mode(context: typer.Context, is_fitting: bool) -> None:
    """Refuse options of the other mode, which nothing would read."""
    if is_fitting and (names := _given_but(context, _OF_FITTING)):
        raise BfpoError(f"--fit-preference labels nothing: leave out {names}")
    if not is_fitting and "--order-error" in _given_but(context, ()):
        raise BfpoError("--order-error: only works together with --fit-preference; leave it out")


def _given_but(context: typer.Context, read: Sequence[str]) -> str:
    """The parameters that were given and are none of these, in words."""
    given: list[Any] = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        given += [parameter] if source and source.name == "COMMANDLINE" and parameter.name not in read else []
    return ", ".join(max(one.opts, key=len) if one.param_type_name == "option" else "the preferences" for one in given)


def _check_shard(context: typer.Context, preferences: str | None) -> None:
    if names := _given_but(context, _OF_SHARDS):
        raise BfpoError(f"--shard only judges: leave out {names}, which the run with --merge reads")
    if preferences is None:
        raise BfpoError("name what to judge: bfpo label pairs.jsonl --judge J --shard 1/8 --cache part-1.sqlite")


def _judge_shard(
    preferences: str,
    judges: list[Judge],
    order_judge: HelpfulnessJudge | None,
    part: str,
    cache: Path | None,
    how: dict[str, Any],
    as_json: bool,
) -> None:
    from bfpo.judges.cache import VerdictCache, default_cache_file
    from bfpo.labeling.sharding import judge_shard
    from bfpo.shards import Shard

    shard = Shard.parse(part)
    file = cache or default_cache_file()
    with VerdictCache(file) as verdicts:
        done = judge_shard(preferences, judges, order_judge, shard, verdicts, how)
    print_work(*judges, order_judge)
    if as_json:
        echo(json.dumps({"cache": str(file), **asdict(done)}))
        return
    what = [f"verdicts on {done.answers:,} of {done.all_answers:,} answers"] if judges else []
    what += [f"preferences between {done.pairs:,} of {done.all_pairs:,} pairs of answers"] if order_judge else []
    echo(f"The {' and the '.join(what)} are in {file}; label with --merge once all parts are done.")


def _print(labeled: LabeledSet, output: Path, wanted: int | None, as_json: bool) -> None:
    from bfpo.labeling.run import judgments_file, queue_file

    report, drawn = labeled.report, labeled.judgments
    if as_json:
        files = {"output": str(output), "queue": str(queue_file(output))}
        overall = {"file": str(judgments_file(output)), "pairs": drawn, "wanted": wanted}
        echo(json.dumps({**asdict(report), **files, "judgments": wanted and overall}, indent=2))
        return
    for line in _report_lines(report):
        echo(line)
    echo(f"Wrote {output}, and the queue {queue_file(output)}: rows to label by hand, most valuable first.")
    if drawn is not None:
        fewer = (
            f" of {wanted:,} wanted; no other prompt has a pair with two flags and an order" if drawn != wanted else ""
        )
        echo(f"Wrote {judgments_file(output)}: {drawn:,} pairs for overall judgments{fewer}.")


def _report_lines(report: LabelingReport) -> list[str]:
    safety, order = report.safety, report.order
    lines = [
        f"safety: kept {_people(safety, 'flags')}, a judge filled in {safety['judge']:,}, "
        f"{safety['unparsed']:,} stay unknown (no verdict could be read)",
        f"order: kept {_people(order, 'labels')}, a judge filled in {order['judge']:,} "
        f"(swapped: {report.turned:,}), {order['unknown']:,} stay unknown",
    ]
    if report.rejudged:
        lines.append(f"judged again: {report.rejudged:,} flags and orders that a judge had filled in earlier")
    lines += _unparsed_lines(report)
    if report.judges:
        lines += _error_lines(report)
    if report.order_error is not None:
        error = report.order_error
        lines.append(
            f"{report.order_judge}: wrong on a share of {error.value:.3f} [{error.low:.3f}, {error.high:.3f}] of the "
            f"{error.n:,} orders given by people"
        )
    return lines


def _unparsed_lines(report: LabelingReport) -> Iterator[str]:
    """The answers and pairs that each judge gave no verdict on, and why."""
    answers, pairs = sum(report.safety.values()), sum(report.order.values())
    for name, reasons in report.unparsed.items():
        shown = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        asked = f"{answers:,} answers" if name in report.judges else f"{pairs:,} pairs"
        yield f"{name}: no verdict on {sum(reasons.values()):,} of {asked} ({shown})"


def _error_lines(report: LabelingReport) -> list[str]:
    """The safety judges' errors, and what the probabilities are."""
    from bfpo.labeling.people_sample import MINIMUM_OF_EACH

    if report.sample is None:
        lines = [
            f"errors: unknown, as a random sample of people's labels with {MINIMUM_OF_EACH} safe and {MINIMUM_OF_EACH} "
            "unsafe answers is missing; answer the random part of the queue"
        ]
    else:
        taken = "" if report.sample == "random part" else ", taken as a random sample of it"
        lines = [
            f"errors: estimated from the {report.sample}{taken}; prior probability of a safe answer: {report.prior:.3f}"
        ]
    for name, found in zip(report.judges, report.errors, strict=True):
        if found is not None:
            safe, unsafe = found.specificity, found.sensitivity
            seen = f"from {safe.n:,} safe and {unsafe.n:,} unsafe answers"
            lines.append(f"{name}: sensitivity {unsafe.value:.3f}, specificity {safe.value:.3f} ({seen})")
        elif report.sample:
            lines.append(f"{name}: error unknown, as it has no verdict on the safe or on the unsafe answers there")
    for name, share in zip(report.judges, report.in_sample, strict=True):
        if share:
            lines.append(f"{name}: fitted to {share:.0%} of these human flags, on which its error is out of fold")
    return [*lines, f"probabilities: {_CALIBRATED[report.calibrated]}"]


_CALIBRATED = {
    "sample": "calibrated on that sample, out of fold",
    "itself": "the judge's own, which were calibrated out of fold when it was fitted",
    "not": "the judges' own, not calibrated",
}


def _people(counts: dict[str, int], what: str) -> str:
    """Number of people's labels, and how many of them were asked for."""
    asked = counts["random"] + counts["queue"]
    parts = f" ({counts['random']:,} of the random part, {counts['queue']:,} others of the queue)" if asked else ""
    return f"{counts['people'] + asked:,} human {what}{parts}"
