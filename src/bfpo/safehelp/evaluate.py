"""`evaluate`: sample and judge answers, score choices, compute figures; an interrupted run resumes."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bfpo.errors import BfpoError
from bfpo.files import sole_user
from bfpo.generation.protocol import Decoding, Generator, LikelihoodScorer, ModelIdentity
from bfpo.judges.preference import HelpfulnessJudge
from bfpo.judges.unjudged import says_nothing
from bfpo.judges.verdict import Judge
from bfpo.safehelp.counting import count_records
from bfpo.safehelp.journal import Journal
from bfpo.safehelp.judge_panel import JudgePanel
from bfpo.safehelp.labelers import check_labelers, labelers_of
from bfpo.safehelp.length_control import length_controlled_scores
from bfpo.safehelp.parts import Work, work_of
from bfpo.safehelp.records import (
    GENERATIONS,
    LIKELIHOODS,
    Evaluation,
    GenerationRecord,
    LikelihoodRecord,
    RunHeader,
    read_generations,
    read_header,
    read_likelihoods,
    write_header,
)
from bfpo.safehelp.runners import require_some, run_choices, run_prompts
from bfpo.safehelp.same_run import check_same_run, with_paths_of
from bfpo.safehelp.scores import score
from bfpo.safehelp.suites import Suite, load_suite
from bfpo.safehelp.training_records import training_record, training_setting
from bfpo.shards import Shard
from bfpo.statistics.judge_error import ErrorRates
from bfpo.versions import versions

Progress = Callable[[str, int, int], None]


def evaluate(
    generator: Generator | str | Path,
    suite: Suite | str = "microworld",
    *,
    name: str | None = None,
    decoding: Decoding | None = None,
    folder: Path | None = None,
    judges: Sequence[Judge] = (),
    helpfulness_judge: HelpfulnessJudge | None = None,
    refusal_judge: Judge | None = None,
    judge_error: ErrorRates | None = None,
    labeling_judge: str | None = None,
    allow_labeling_judge: bool = False,
    limit: int | None = None,
    shard: Shard | None = None,
    merge: Sequence[Path] = (),
    command: str = "",
    progress: Progress = lambda what, done, total: None,
) -> Evaluation:
    """Evaluate a model on a suite.

    Args:
        generator: `LocalGenerator`, `EndpointGenerator` or any other `bfpo.generation.protocol.Generator`; or the
            folder or Hub name of a local model.
        suite: a suite, or the name of one. Tasks that the generator can't run are left out, see `runnable`.
        name: name of the model in tables; by default the last part of its path.
        decoding: sampling settings; by default the suite's, as far as the generator can follow them.
        folder: run folder; an interrupted run resumes from it. None: nothing is saved.
        judges: safety judges, the primary one first; a suite with an exact judge needs none.
        helpfulness_judge: judge that compares answers with the references of pairwise tasks.
        refusal_judge: judge that decides which answers decline; by default the primary judge does.
        judge_error: the primary judge's errors on labeled answers, for error-corrected rates.
        labeling_judge: id of a judge that labeled the model's training data, besides those in its ``run.json``.
        allow_labeling_judge: whether such a judge may evaluate, too.
        limit: largest number of items per task, for lm-eval's tasks and if ``suite`` is a name.
        shard: a part of the planned batches, to answer only these: the folder then has records, but no scores. The
            first part also has all items by likelihood.
        merge: folders of all parts, whose records are taken instead of being made again.
        command: the command line, for the header.
        progress: function called with a stage, such as "answers", and its numbers of finished and all items.

    Raises:
        BfpoError: if the suite can't run, a judge is missing or not allowed, or the folder contains another run.
        RunError: if the generator gives no answer at all, or the judge no verdict.
    """
    generator = _loaded(generator)
    suite = _own_part(load_suite(suite, limit=limit) if isinstance(suite, str) else suite, generator, shard)
    decoding = _without_repeats(decoding or generator.defaults(suite.decoding))
    panel = JudgePanel(suite, judges, helpfulness_judge, refusal_judge)
    labelers = labelers_of(generator.model_paths, labeling_judge)
    check_labelers(labelers, () if allow_labeling_judge else panel.named)
    header = _header(
        generator.identity, name, suite, limit, decoding=generator.settings(decoding), judge_error=judge_error,
        labelling_judge=" and ".join(labelers) or None, command=command, shard=shard and str(shard), judges=panel.used,
    )  # fmt: skip
    work = work_of(shard, merge, header)
    with sole_user(folder) if folder else TemporaryDirectory(prefix="bfpo-evaluation-") as place:
        run = _Run.claim(Path(place), with_paths_of(header, work.headers), progress)
        _make_records(run, generator, suite, decoding, panel, limit, work)
        return _finish(run, suite, generator)


def _loaded(generator: Generator | str | Path) -> Generator:
    if not isinstance(generator, str | Path):
        return generator
    from bfpo.generation.local_generator import LocalGenerator

    return LocalGenerator.load(generator)


def _own_part(suite: Suite, generator: Generator, shard: Shard | None) -> Suite:
    """What the generator can run of a suite; lm-eval runs its tasks as a whole, so they can't be shared."""
    suite, left_out = runnable(suite, generator)
    if left_out:
        warnings.warn(f"the generator can't run these tasks, which are left out: {', '.join(left_out)}", stacklevel=3)
    if whole := [task.task for task in suite.tasks if task.runner == "lm-eval" and shard]:
        raise BfpoError(f"--shard: lm-eval runs {', '.join(whole)}, which can't be divided; leave them out with --task")
    return suite


def runnable(suite: Suite, generator: Generator) -> tuple[Suite, list[str]]:
    """The part of a suite that a generator can run, and the names of the tasks left out.

    Likelihood tasks need a `bfpo.generation.protocol.LikelihoodScorer`, lm-eval's tasks a local model.

    Raises:
        BfpoError: if nothing is left.
    """
    tasks = tuple(task for task in suite.tasks if _can_run(generator, task.runner))
    choices = suite.choices if isinstance(generator, LikelihoodScorer) else []
    if not (suite.prompts or choices or tasks):
        raise BfpoError(
            f"suite {suite.name!r} has only likelihood tasks, which the generator can't run: use a local model"
        )
    left_out = [task.task for task in suite.tasks if task not in tasks]
    reasons = {**suite.left_out, **dict.fromkeys(left_out, "the generator can't run it")}
    return replace(suite, choices=choices, tasks=tasks, left_out=reasons), left_out


def _without_repeats(wanted: Decoding) -> Decoding:
    decoding = wanted.without_repeats()
    if decoding != wanted:
        warnings.warn(f"at temperature 0 all {wanted.samples} answers are the same: sampling one", stacklevel=3)
    return decoding


def _can_run(generator: Generator, runner: str) -> bool:
    if runner == "lm-eval":
        from bfpo.generation.local_generator import LocalGenerator

        return isinstance(generator, LocalGenerator)
    return runner == "generation" or isinstance(generator, LikelihoodScorer)


def _header(
    identity: ModelIdentity,
    name: str | None,
    suite: Suite,
    limit: int | None,
    **settings: Any,
) -> RunHeader:
    name = name or Path(identity.path or "").name
    if not name:
        raise BfpoError("the generator's identity has no path to take a name from: pass name=")
    return RunHeader(
        model=name,
        suite=suite.name,
        model_path=identity.path,
        base_model=training_setting(training_record(identity.path), "model"),
        model_digest=identity.digest,
        suite_digest=_suite_digest(suite, limit),
        chat_template_sha256=identity.chat_template_sha256,
        system_prompt=identity.system_prompt,
        extra_body=identity.extra_body,
        versions=versions(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        prompts_digest=_prompts_digest(suite),
        sources={task: asdict(source) for task, source in suite.sources.items()},
        left_out=tuple(suite.left_out),
        finished=False,
        **settings,
    )


@dataclass
class _Run:
    """A run folder that has been claimed: its header and its two journals."""

    folder: Path
    header: RunHeader
    answers: Journal[GenerationRecord]
    scored: Journal[LikelihoodRecord]
    was_finished: bool
    progress: Progress
    began: float

    @classmethod
    def claim(cls, folder: Path, header: RunHeader, progress: Progress) -> _Run:
        """Start a run in a folder, or resume the one in it.

        Raises:
            BfpoError: if the folder contains another run.
        """
        found = read_header(folder)
        header, began = _claimed(folder, header, found), time.monotonic()
        answers = Journal(folder / GENERATIONS, read_generations)
        scored = Journal(folder / LIKELIHOODS, read_likelihoods)
        torn = header.counts.get("torn_lines", 0) + bool(answers.cut) + bool(scored.cut)
        header = replace(header, counts={"torn_lines": torn})
        return cls(folder, header, answers, scored, found is not None and found.finished, progress, began)

    def note(self, what: str, done: int, total: int) -> None:
        """Report progress, and save the run time so far in case the run is killed."""
        write_header(self.folder, replace(self.header, seconds=self.seconds))
        self.progress(what, done, total)

    @property
    def seconds(self) -> float:
        """Run time so far, over all resumptions."""
        return self.header.seconds + round(time.monotonic() - self.began, 1)


def _make_records(
    run: _Run,
    generator: Generator,
    suite: Suite,
    decoding: Decoding,
    panel: JudgePanel,
    limit: int | None,
    work: Work,
) -> None:
    finished = _finished_tasks(run, suite)
    noted = lambda *count: run.note("answers", *count)  # noqa: E731
    run_prompts(generator, decoding, panel, suite.prompts, run.answers, noted, work)
    if isinstance(generator, LikelihoodScorer):
        run_choices(generator, suite.choices, run.scored, lambda *count: run.note("likelihoods", *count), work)
    lm_eval_tasks = sum(task.runner == "lm-eval" for task in suite.tasks)
    if lm_eval_tasks:
        from bfpo.generation.local_generator import LocalGenerator
        from bfpo.safehelp.lm_eval_tasks import LM_EVAL_BATCH, run_lm_eval

        assert isinstance(generator, LocalGenerator), "`runnable` leaves lm-eval's tasks to local models"
        batch_size = min(decoding.batch_size, LM_EVAL_BATCH)
        made = run_lm_eval(generator, suite, limit=limit, batch_size=batch_size, done=finished)
        for number, (likelihoods, generations) in enumerate(made, len(finished) + 1):
            run.scored.append(likelihoods)
            run.answers.append(generations)
            run.note("lm-eval", number, lm_eval_tasks)


def _finish(run: _Run, suite: Suite, generator: Generator) -> Evaluation:
    generations, likelihoods = run.answers.records(), run.scored.records()
    require_some(generations, says_nothing, is_part=run.header.shard is not None)
    counts = {**count_records(generations, likelihoods), **run.header.counts}
    tokens = {name.removesuffix("_tokens"): count for name, count in counts.items() if name.endswith("_tokens")}
    cost = generator.cost(tokens) if tokens else None
    header = replace(run.header, seconds=run.seconds, counts=counts, cost=cost, finished=True)
    scores, tasks = score(generations, likelihoods, suite.tasks, header.judge_error)
    tasks = (*tasks, *length_controlled_scores(generations, suite.prompts))
    evaluation = Evaluation(header, scores, tasks, generations, likelihoods)
    if not header.shard:  # scores of a part would look like those of the whole
        evaluation.save_scores(run.folder)
    write_header(run.folder, header)
    return evaluation


def _finished_tasks(run: _Run, suite: Suite) -> list[str]:
    """lm-eval's finished tasks: each task is written at once, so only the last may be incomplete."""
    lm_eval_tasks = {task.task for task in suite.tasks if task.runner == "lm-eval"}
    keys = [list(run.answers.done), list(run.scored.done)]
    begun = dict.fromkeys(task for own in keys for task, _, _ in own if task in lm_eval_tasks)
    last = {own[-1][0] for own in keys if own and not run.was_finished}
    return [task for task in begun if task not in last]


def _suite_digest(suite: Suite, limit: int | None) -> str:
    """SHA-256 of every item; and of the names, metrics, files and limit of lm-eval's tasks, which load their own."""
    own = [task for task in suite.tasks if task.runner == "lm-eval"]
    files = {task: (source.sha256, source.examples_sha256) for task, source in suite.sources.items()}
    names = [(task.lm_eval, task.metrics, files.get(task.task)) for task in own]
    return hashlib.sha256(f"{suite.digest} {names} {limit}".encode()).hexdigest() if names else suite.digest


def _claimed(folder: Path, header: RunHeader, found: RunHeader | None) -> RunHeader:
    """The header with start, run time and counts of the run in the folder, if there is one."""
    if found is None:
        if (folder / GENERATIONS).exists() or (folder / LIKELIHOODS).exists():
            raise BfpoError(f"{folder}: contains records without a header; name another folder, or remove it")
        write_header(folder, header)
        return header
    check_same_run(folder, found, header)
    if found.shard != header.shard:
        raise BfpoError(
            f"{folder}: contains {_part(found)} of this run, and this is {_part(header)}; name another folder"
        )
    header = with_paths_of(header, [found])
    header = replace(
        header, started=found.started, seconds=found.seconds, counts=found.counts,
        judge_error=header.judge_error or found.judge_error,
    )  # fmt: skip
    # A complete run is only scored again, so what made it stays on record, unless something is asked for anew.
    asks = any(found.counts.get(name) for name in ("unanswered", "unparsed", "uncompared"))
    is_as_it_was = found.finished and not asks
    return replace(header, versions=found.versions, command=found.command) if is_as_it_was else header


def _part(header: RunHeader) -> str:
    return f"part {header.shard}" if header.shard else "the whole"


def _prompts_digest(suite: Suite) -> dict[str, str]:
    digests = {}
    for item in [*suite.prompts, *suite.choices]:
        digests.setdefault(item.task, hashlib.sha256()).update(json.dumps(asdict(item), sort_keys=True).encode())
    return {task: digest.hexdigest() for task, digest in digests.items()}
