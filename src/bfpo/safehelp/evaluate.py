"""Evaluate a model on a suite: sample and judge answers, compare likelihoods, score; resumable."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bfpo.errors import BfpoError
from bfpo.generation.protocol import Decoding, Generator
from bfpo.judges.verdict import Judge
from bfpo.safehelp.generation import run_prompts
from bfpo.safehelp.journal import Journal
from bfpo.safehelp.judging import HelpJudge, Judging
from bfpo.safehelp.length_control import length_controlled_scores
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
from bfpo.safehelp.scores import score
from bfpo.safehelp.suites import Split, Suite, load_suite
from bfpo.statistics.judging import JudgeErrors
from bfpo.versions import versions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bfpo.endpoints import Endpoint
    from bfpo.safehelp.lm_eval_tasks import LmEvalRecords

Progress = Callable[[str, int, int], None]
# What makes a run another run; versions, times and counts don't, nor where a model with a digest was found.
_IDENTITY = (
    "model", "model_digest", "suite", "suite_digest", "chat_template_sha256", "system_prompt", "decoding", "judges",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What a run may be told beside its model and suite.

    Attributes:
        judges: of safety, the primary one first; a suite with an exact judge needs none.
        help_judge: compares answers with the references of pairwise tasks.
        judge_errors: how often the primary judge was right on labelled answers, for error-corrected rates.
        system_prompt: what stands before every prompt.
        labelling_judge: which judge labelled the model's training data, if that is known.
        model_path: folder, Hub name or address of the model, as it was given.
        command: what was typed.
        limit: items of each of lm-eval's tasks; those of other tasks were limited when the suite was loaded.
        progress: told what is going on, how much of it is done, and of how much.
    """

    judges: Sequence[Judge] = ()
    help_judge: HelpJudge | None = None
    judge_errors: JudgeErrors | None = None
    system_prompt: str | None = None
    labelling_judge: str | None = None
    model_path: str | None = None
    command: str = ""
    limit: int | None = None
    progress: Progress = lambda what, done, total: None


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str,
    suite: str | Suite = "microworld",
    split: Split = "test",
    decoding: Decoding | None = None,
    per_kind: int = 500,
    folder: Path | None = None,
    options: Options | None = None,
) -> Evaluation:
    """Evaluate a local model.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer; without a chat template prompts are plain text.
        name: what tables call the model.
        suite: a suite, or the name of one.
        split: of a suite that is named: "test", or "validation" for choosing settings.
        decoding: how to sample; by default as the suite says. A suite that is named says how long an answer may be.
        per_kind: of a suite that is named: prompts of each kind.
        folder: where the run is kept, batch by batch, and gone on with if it was interrupted; None keeps nothing.
        options: judges and whatever else.

    Raises:
        BfpoError: if there is no such suite, it lacks a judge, or the folder holds another run.
    """
    from bfpo.engine.reference_cache import model_digest
    from bfpo.generation.sampling import LocalGenerator
    from bfpo.safehelp.likelihood import run_choices
    from bfpo.safehelp.lm_eval_tasks import run_lm_eval

    options = options or Options()
    if isinstance(suite, str):
        suite = load_suite(suite, split=split, per_kind=per_kind)
        decoding = replace(decoding or Decoding(), max_new_tokens=suite.decoding.max_new_tokens)
    decoding = decoding or suite_decoding(suite)
    chat = bool(tokenizer.chat_template)
    generator = LocalGenerator(model, tokenizer, decoding, options.system_prompt)

    def choices(done: Sequence[tuple[str, str]]) -> Iterator[list[LikelihoodRecord]]:
        return run_choices(
            model, tokenizer, suite.choices, chat=chat, system_prompt=options.system_prompt, done=frozenset(done)
        )

    def lm_eval(done: Sequence[str]) -> Iterator[LmEvalRecords]:
        return run_lm_eval(
            model, tokenizer, suite, chat=chat, system_prompt=options.system_prompt, limit=options.limit, done=done
        )

    header = replace(
        _header(name, suite, decoding, options),
        base_model=_base_model(options.model_path),
        model_digest=model_digest(model, str(model.dtype)),
        chat_template_sha256=hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest() if chat else None,
    )
    return _run(_Runners(generator, choices, lm_eval), suite, decoding, header, folder, options)


def evaluate_endpoint(
    endpoint: Endpoint,
    *,
    name: str,
    suite: Suite,
    decoding: Decoding | None = None,
    folder: Path | None = None,
    options: Options | None = None,
) -> Evaluation:
    """Evaluate a model behind an OpenAI-compatible server, by its answers: it gives no log-likelihoods of choices.

    Raises:
        BfpoError: if the suite has nothing to answer or lacks a judge, or the folder holds another run.
        RunError: if the server gives no answer.
    """
    from bfpo.generation.endpoint import EndpointGenerator

    if not suite.prompts:
        raise BfpoError(f"suite {suite.name!r} has only tasks of likelihood, which a server can't run: name a model")
    options, decoding = options or Options(), decoding or suite_decoding(suite)
    suite = replace(suite, choices=[], tasks=tuple(task for task in suite.tasks if task.runner == "generation"))
    generator = EndpointGenerator(endpoint, decoding, options.system_prompt)
    runners = _Runners(generator, lambda done: iter(()), lambda done: iter(()))
    return _run(runners, suite, decoding, _header(name, suite, decoding, options), folder, options)


def suite_decoding(suite: Suite) -> Decoding:
    """How a suite samples answers by default."""
    own = suite.decoding
    return Decoding(temperature=own.temperature, top_p=own.top_p, max_new_tokens=own.max_new_tokens)


def _header(name: str, suite: Suite, decoding: Decoding, options: Options) -> RunHeader:
    return RunHeader(
        model=name,
        suite=suite.name,
        model_path=options.model_path,
        suite_digest=_suite_digest(suite, options.limit),
        system_prompt=options.system_prompt,
        decoding=asdict(decoding),
        judges=Judging(suite, options.judges, options.help_judge).used,
        labelling_judge=options.labelling_judge,
        versions=versions(),
        command=options.command,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        prompts_digest=_prompts_digest(suite),
        sources={task: asdict(source) for task, source in suite.sources.items()},
        finished=False,
    )


@dataclass(frozen=True)
class _Runners:
    """What makes the records, each told what is there already."""

    generator: Generator
    choices: Callable[[Sequence[tuple[str, str]]], Iterator[list[LikelihoodRecord]]]
    lm_eval: Callable[[Sequence[str]], Iterator[LmEvalRecords]]


def _run(
    runners: _Runners,
    suite: Suite,
    decoding: Decoding,
    header: RunHeader,
    folder: Path | None,
    options: Options,
) -> Evaluation:
    judging = Judging(suite, options.judges, options.help_judge)
    with _kept(folder) as place:
        before = read_header(place)
        header, clock = _claim(place, header, before), _Clock()
        answers = Journal(place / GENERATIONS, read_generations)
        scored = Journal(place / LIKELIHOODS, read_likelihoods)
        torn = header.counts.get("torn_lines", 0) + bool(answers.cut) + bool(scored.cut)
        header = replace(header, counts={"torn_lines": torn})

        def note(what: str, done: int, total: int) -> None:
            # So that a run that is killed has said how long it took.
            write_header(place, replace(header, seconds=header.seconds + clock.seconds))
            options.progress(what, done, total)

        finished = _finished_tasks(suite, answers, scored, before is not None and before.finished)
        run_prompts(
            runners.generator, judging, suite.prompts, decoding.samples, answers, lambda *count: note("answers", *count)
        )
        for batch in runners.choices([(task, item) for task, item, _ in scored.done]):
            scored.append(batch)
            note("likelihoods", len(scored.done), len(suite.choices))
        theirs = sum(task.runner == "lm-eval" for task in suite.tasks)
        for number, made in enumerate(runners.lm_eval(finished), len(finished) + 1):
            scored.append(made.likelihoods)
            answers.append(made.generations)
            note("lm-eval", number, theirs)
        generations, likelihoods = answers.records(), scored.records()
        header = replace(
            header,
            seconds=header.seconds + clock.seconds,
            counts={**_counts(generations, likelihoods), "torn_lines": torn},
            finished=True,
        )
        scores, tasks = score(generations, likelihoods, suite.tasks, options.judge_errors)
        tasks = (*tasks, *length_controlled_scores(generations, suite.prompts))
        evaluation = Evaluation(header, scores, tasks, generations, likelihoods)
        evaluation.save_scores(place)
        write_header(place, header)
    return evaluation


def _finished_tasks(
    suite: Suite, answers: Journal[GenerationRecord], scored: Journal[LikelihoodRecord], is_whole: bool
) -> list[str]:
    """lm-eval's tasks that need not run again: a task is written at once, so that only the last may be in pieces."""
    theirs = {task.task for task in suite.tasks if task.runner == "lm-eval"}
    keys = [list(journal.done) for journal in (answers, scored)]
    begun = dict.fromkeys(task for own in keys for task, _, _ in own if task in theirs)
    last = {own[-1][0] for own in keys if own and not is_whole}
    return [task for task in begun if task not in last]


def _suite_digest(suite: Suite, limit: int | None) -> str:
    """Of every item, and of what lm-eval is asked, whose items only it knows."""
    theirs = [task.lm_eval for task in suite.tasks if task.runner == "lm-eval"]
    return hashlib.sha256(f"{suite.digest} {theirs} {limit}".encode()).hexdigest() if theirs else suite.digest


class _Clock:
    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since this process began."""
        return round(time.monotonic() - self._started, 1)


@contextmanager
def _kept(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with TemporaryDirectory(prefix="bfpo-evaluation-") as place:
            yield Path(place)


def _claim(folder: Path, header: RunHeader, found: RunHeader | None) -> RunHeader:
    """Begin a run in a folder, or go on with it: the header of the run that is there counts its time and losses.

    Raises:
        BfpoError: if the folder holds a run of something else.
    """
    if found is None:
        if (folder / GENERATIONS).exists() or (folder / LIKELIHOODS).exists():
            raise BfpoError(f"{folder}: holds records without a header; name another folder, or remove it")
        write_header(folder, header)
        return header
    for name in (*_IDENTITY, *(() if header.model_digest else ("model_path",))):
        before, now = getattr(found, name), getattr(header, name)
        if before != now:
            raise BfpoError(
                f"{folder}: holds a run with another {name} ({_difference(before, now)}); "
                "name another folder, or remove it"
            )
    return replace(header, started=found.started, seconds=found.seconds, counts=found.counts)


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        differing = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        return ", ".join(f"{key} {before.get(key)}, now {now.get(key)}" for key in differing)
    return f"{before}, now {now}"


def _counts(generations: Sequence[GenerationRecord], likelihoods: Sequence[LikelihoodRecord]) -> dict[str, int]:
    return {
        "prompts": len({(record.task, record.item) for record in generations}),
        "answers": len(generations),
        "truncated": sum(record.truncated for record in generations),
        "empty": sum(not record.answer.strip() for record in generations),
        "unparsed": sum(record.answer_kind == "unjudged" for record in generations),
        "likelihoods": len(likelihoods),
        "truncated_likelihoods": sum(record.truncated for record in likelihoods),
    }


def _prompts_digest(suite: Suite) -> dict[str, str]:
    digests = {}
    for item in [*suite.prompts, *suite.choices]:
        digests.setdefault(item.task, hashlib.sha256()).update(json.dumps(asdict(item), sort_keys=True).encode())
    return {task: digest.hexdigest() for task, digest in digests.items()}


def _base_model(path: str | None) -> str | None:
    """What a folder's training run says it started from."""
    record = Path(path or "") / "run.json"
    if path is None or not record.is_file():
        return None
    config = json.loads(record.read_text(encoding="utf-8")).get("config", {})
    value = config.get("model", {}).get("value") if isinstance(config, dict) else None
    return value if isinstance(value, str) else None
