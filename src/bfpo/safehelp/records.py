"""Files of an evaluation: header, records of answers and likelihoods, and scores with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from bfpo.config import CLOSED, Closed, parse_json, read_json
from bfpo.errors import BfpoError
from bfpo.files import encodable, write_json, write_lines
from bfpo.judges.verdict import Refusal, Verdict
from bfpo.safehelp.answer_kinds import AnswerKind
from bfpo.safehelp.items import Factor, Kind, Scored
from bfpo.statistics.intervals import Estimate
from bfpo.statistics.judge_error import ErrorRates

HEADER, GENERATIONS, LIKELIHOODS, SCORES = "run.json", "generations.jsonl", "likelihoods.jsonl", "scores.json"
KINDS: tuple[Kind, ...] = get_args(Kind)
_REMEDY = "copy the run again, or evaluate again with this version"


@dataclass(frozen=True)
class GenerationRecord:
    """One sampled answer and its verdicts; ``task`` to ``prompt`` are as in `bfpo.safehelp.items.PromptItem`.

    Attributes:
        sample: number of the answer among those to the same prompt, from 0.
        rendered: the prompt as the model read it, after the chat template.
        answer: the answer, without the thinking before it.
        tokens: its length without the end token (as the server counts it, if there is one); None if unknown.
        truncated: whether it was cut before its end.
        verdicts: one verdict per judge, the primary judge's first.
        p_help: its helpfulness in [0, 1], if an oracle or a helpfulness judge measured it.
        answer_kind: its kind, see `bfpo.safehelp.answer_kinds.answer_kind`.
        detail: an exact judge's finer label ("vague"), if any.
        thinking: the model's thinking before the answer, which is not judged.
        refusal: the words in which a server's provider, not the model, declined; "" if it didn't.
        failure: why there is no answer; "" if there is one.
        finish_reason: the server's reason for the end of the answer.
        usage: the server's counts of "prompt", "completion" and "reasoning" tokens; None if it gave none.
        refusal_verdict: verdict of the judge of refusals, if there is one.
        harm: its level of harm in (0, 1] by category (exact judge or rubric), empty if none; None if unknown.
        uncompared: output of the helpfulness judge, if no preference could be read in it; "" otherwise.
    """

    __pydantic_config__ = CLOSED

    task: str
    item: str
    sample: int
    kind: Kind
    category: str | None
    attack: str | None
    cluster: str
    prompt: str
    rendered: str
    answer: str
    tokens: int | None
    truncated: bool
    verdicts: tuple[Verdict, ...]
    p_help: float | None
    answer_kind: AnswerKind
    detail: str | None = None
    thinking: str = ""
    refusal: str = ""
    failure: str = ""
    finish_reason: str = ""
    usage: Mapping[str, int] | None = None
    refusal_verdict: Verdict | None = None
    harm: Mapping[str, float] | None = None
    uncompared: str = ""

    @property
    def declines(self) -> Refusal:
        """Whether the answer declines, by the judge of refusals or, without one, by the primary judge."""
        verdict = self.refusal_verdict or next(iter(self.verdicts), None)
        return verdict.refusal if verdict else "unknown"

    @property
    def tells_only_refusal(self) -> bool:
        """Whether the primary judge said if the answer declines, but not if it is safe."""
        return any(v.label == "unparsed" and v.refusal != "unknown" for v in self.verdicts[:1])

    @property
    def leaves_refusal_open(self) -> bool:
        """Whether there is an answer and no judge said if it declines."""
        return self.declines == "unknown" and bool(self.answer.strip()) and not (self.refusal or self.failure)

    @property
    def only_thinking(self) -> bool:
        """Whether the output ended before the model stopped thinking."""
        return bool(self.thinking) and not self.answer.strip() and not self.refusal


@dataclass(frozen=True)
class LikelihoodRecord:
    """Log-probabilities of the choices of one item; other attributes are as in `bfpo.safehelp.items.ChoiceItem`.

    Attributes:
        logps: summed log-probability of each choice, in nats.
        bytes: length of each choice in UTF-8.
        truncated: whether the beginning of the prompt was cut to fit the model.
    """

    __pydantic_config__ = CLOSED

    task: str
    item: str
    factor: Factor
    category: str | None
    cluster: str
    prompt: str
    choices: tuple[str, ...]
    logps: tuple[float, ...]
    bytes: tuple[int, ...]
    correct: tuple[float, ...]
    truncated: bool = False
    labels: tuple[str, ...] = ()
    scored: Scored = "choice"

    def __post_init__(self) -> None:
        if not 0 < len(self.choices) == len(self.logps) == len(self.bytes) == len(self.correct):
            raise ValueError("its choices, logps, bytes and correct are not of the same number, 1 or more")


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task.

    Attributes:
        task: name of the task.
        metric: name of the metric ("harmless", "attack_success", "acc", ...).
        factor: the factor that it measures.
        estimate: the value with its 95 % interval over clusters.
        higher_is_better: its direction.
        chance: the score of guessing, if meaningful.
        kind: kind of its records.
        weight: its weight in the aggregate of its factor; None if it isn't part of it.
    """

    task: str
    metric: str
    factor: Factor
    estimate: Estimate
    higher_is_better: bool
    chance: float | None
    kind: Literal["generation", "likelihood"]
    weight: float | None = None


@dataclass(frozen=True)
class JudgeUsed:
    """A judge of a run."""

    judge_id: str
    template_digest: str
    role: Literal["primary", "second", "refusal", "helpfulness"]


@dataclass(frozen=True)
class RunHeader:
    """The model, data, judges and settings of a run.

    Attributes:
        model: name of the model in tables.
        suite: name of the suite.
        model_path: folder or Hub name of the model, or the address of a server and its name of the model.
        base_model: base model of its training, if its folder's ``run.json`` names one.
        model_digest: SHA-256 of weights and configuration; None for a server.
        suite_digest: SHA-256 of every item of the suite.
        chat_template_sha256: SHA-256 of the chat template; None without one.
        system_prompt: system prompt before every prompt, if any.
        extra_body: further parameters of every request to a server.
        decoding: sampling settings.
        judges: the judges, the primary judge first.
        judge_error: the primary judge's errors, by which rates are corrected; None where they aren't.
        labelling_judge: the judge that labeled the model's training data, if known; several are joined by " and ".
        versions: versions of Python and packages.
        command: the command line.
        started: start time in UTC, ISO 8601.
        seconds: run time so far, over all resumptions.
        counts: numbers of prompts and answers, of unusable answers by kind, and of the tokens that a server reported.
        cost: price of the tokens of the answers, if the server's settings have one; without the judges' own.
        prompts_digest: SHA-256 of the prompts of every task, by name.
        sources: place, revision, SHA-256 and number of rows of each task's data.
        left_out: names of the suite's tasks whose data was missing, or that the generator can't run.
        finished: whether every planned batch is complete.
        shard: the part of the planned batches that the run has, as "1/4"; None if it has all.
        other_paths: other addresses of the same model, at which the run began or its parts were made.
    """

    __pydantic_config__ = CLOSED

    model: str
    suite: str
    model_path: str | None = None
    base_model: str | None = None
    model_digest: str | None = None
    suite_digest: str = ""
    chat_template_sha256: str | None = None
    system_prompt: str | None = None
    extra_body: Mapping[str, Any] | None = None
    decoding: Mapping[str, Any] = field(default_factory=dict)
    judges: tuple[JudgeUsed, ...] = ()
    judge_error: ErrorRates | None = None
    labelling_judge: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    started: str = ""
    seconds: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)
    cost: float | None = None
    prompts_digest: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    finished: bool = True
    shard: str | None = None
    other_paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """One model on one suite.

    Attributes:
        header: the run's header.
        scores: measured headline figures and aggregates by name.
        tasks: metrics of every task.
        generations: records of sampled answers.
        likelihoods: records of items scored by likelihood.
    """

    header: RunHeader
    scores: Mapping[str, Estimate]
    tasks: tuple[TaskScore, ...]
    generations: list[GenerationRecord]
    likelihoods: list[LikelihoodRecord]

    @property
    def model(self) -> str:
        """Name of the model in tables."""
        return self.header.model

    def save(self, folder: Path) -> None:
        """Write the four files of a run folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_lines(folder / GENERATIONS, map(encode_record, self.generations))
        write_lines(folder / LIKELIHOODS, map(encode_record, self.likelihoods))
        self.save_scores(folder)
        write_header(folder, self.header)

    def save_scores(self, folder: Path) -> None:
        """Write ``scores.json``, which can be recomputed from the other files."""
        scores = {
            "scores": {name: asdict(estimate) for name, estimate in self.scores.items()},
            "tasks": [asdict(task) for task in self.tasks],
        }
        write_json(folder / SCORES, scores)

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Read a run folder.

        Raises:
            BfpoError: if the folder contains no finished run, or one of its files is malformed.
        """
        header = read_header(folder)
        if header is None:
            raise BfpoError(f"{folder}: contains no evaluation (no {HEADER}); name a folder that 'bfpo evaluate' wrote")
        if header.shard:
            raise BfpoError(f"{folder}: is part {header.shard} of an evaluation; merge all parts (--merge)")
        if not header.finished:
            raise BfpoError(f"{folder}: the evaluation is unfinished; run the same 'bfpo evaluate' again to resume it")
        scores = read_json(folder / SCORES, _Scores, "the scores of an evaluation", _REMEDY)
        generations, likelihoods = read_generations(folder / GENERATIONS), read_likelihoods(folder / LIKELIHOODS)
        for name, found, file in (("answers", generations, GENERATIONS), ("likelihoods", likelihoods, LIKELIHOODS)):
            planned = header.counts.get(name, len(found))
            if len(found) != planned:
                raise BfpoError(
                    f"{folder / file}: has {len(found):,} of the {planned:,} {name} that {HEADER} counts; copy the run "
                    "again, or evaluate again"
                )
        return cls(header, scores.scores, scores.tasks, generations, likelihoods)


class _Scores(Closed):
    """The file ``scores.json``."""

    scores: dict[str, Estimate]
    tasks: tuple[TaskScore, ...]


def write_header(folder: Path, header: RunHeader) -> None:
    """Write ``run.json``."""
    write_json(folder / HEADER, asdict(header), ensure_ascii=False)


def read_header(folder: Path) -> RunHeader | None:
    """The header in a run folder; None if there is no file.

    Raises:
        BfpoError: if the file is not an evaluation's header.
    """
    path = folder / HEADER
    return read_json(path, RunHeader, "the header of an evaluation", _REMEDY) if path.exists() else None


def encode_record(record: GenerationRecord | LikelihoodRecord) -> str:
    """A record as one line of JSON, including the line end."""
    # A generator or judge of the user's own may give lone surrogates.
    return encodable(json.dumps(asdict(record), ensure_ascii=False)) + "\n"


def read_generations(path: Path) -> list[GenerationRecord]:
    """Read records of sampled answers; an empty list if there is no file.

    Raises:
        BfpoError: if a line is not such a record.
    """
    return _read_lines(path, GenerationRecord, "the record of an answer")


def read_likelihoods(path: Path) -> list[LikelihoodRecord]:
    """Read records of log-probabilities; an empty list if there is no file.

    Raises:
        BfpoError: if a line is not such a record.
    """
    return _read_lines(path, LikelihoodRecord, "the record of an item's log-probabilities")


_Record = TypeVar("_Record")


def _read_lines(path: Path, kind: type[_Record], what: str) -> list[_Record]:
    if not path.exists():
        return []
    try:
        with path.open("rb") as file:
            return [parse_json(line, kind, f"{path}, line {at}", what, _REMEDY) for at, line in enumerate(file, 1)]
    except OSError as error:
        raise BfpoError(f"{path}: can't be read ({error.strerror}); {_REMEDY}") from error
