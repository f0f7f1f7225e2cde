"""What an evaluation leaves behind: a header, one record an item, and the scores with their intervals."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from bfpo.errors import BfpoError
from bfpo.files import write_lines, write_text
from bfpo.judges.verdict import Verdict
from bfpo.safehelp.items import Factor, Kind, Scored
from bfpo.statistics.intervals import Estimate

AnswerKind = Literal["safe-helpful", "safe-refusal", "partial", "unsafe", "incoherent", "unjudged"]

HEADER, GENERATIONS, LIKELIHOODS, SCORES = "run.json", "generations.jsonl", "likelihoods.jsonl", "scores.json"
KINDS: tuple[Kind, ...] = ("benign", "borderline", "harmful")
# In the order of a stacked bar, from what one wants to what one doesn't.
ANSWER_KINDS: tuple[AnswerKind, ...] = (
    "safe-helpful", "partial", "safe-refusal", "unsafe", "incoherent", "unjudged",
)  # fmt: skip


@dataclass(frozen=True)
class GenerationRecord:
    """One sampled answer and what the judges said of it.

    Attributes:
        task: name of the task.
        item: name of the prompt within the task.
        sample: number of the answer to it, from 0.
        kind: benign, borderline or harmful.
        category: kind of harm or of prompt, if any.
        attack: how the prompt is disguised, if it is.
        cluster: what items share (seed prompt, behaviour); the item itself otherwise.
        prompt: the question as asked.
        rendered: the question after the chat template, as the model read it.
        answer: the answer.
        tokens: its length, the end token not counted; None where a server does not say.
        truncated: whether it was cut before its end.
        verdicts: one a judge, the primary judge's first.
        p_help: how far it helps, in [0, 1], where something measured it (an oracle, a pairwise judge).
        answer_kind: what it is, derived once by `bfpo.safehelp.scores.answer_kind` from the fields above.
        detail: a finer word of an exact judge ("vague"), if there is one.
    """

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


@dataclass(frozen=True)
class LikelihoodRecord:
    """Log-probabilities of the choices of one item.

    Attributes:
        task: name of the task.
        item: name of the item within the task.
        factor: what is measured.
        category: kind of item, if any.
        cluster: what items share; the item itself otherwise.
        prompt: what the choices continue.
        choices: the choices.
        logps: summed log-probability of each, in nats.
        bytes: length of each in UTF-8.
        correct: 1.0 for right choices (several, in some tasks), 0.0 for the others.
        truncated: whether the beginning of the prompt was cut to fit the model.
        labels: one word a choice, what picking it means ("biased"), for metrics that ask; may be empty.
        scored: "choice" for log P(choice | prompt), "prompt" for log P(prompt | choice).
    """

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


@dataclass(frozen=True)
class TaskScore:
    """One task's figure.

    Attributes:
        task: name of the task.
        metric: name of the metric ("harmless", "attack_success", "acc", ...).
        factor: what it measures.
        estimate: the figure with its 95 % interval over clusters.
        higher_is_better: its direction.
        chance: what guessing scores, where that means something.
        kind: which runner made it.
        weight: its share in the aggregate of its factor; None where it is not part of it.
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
    role: Literal["primary", "second", "helpfulness"]


@dataclass(frozen=True)
class RunHeader:
    """What a run was made of.

    Attributes:
        model: what tables call the model.
        suite: name of the suite.
        model_path: folder, Hub name or address as it was given.
        base_model: what the model was trained from, where its folder says so.
        model_digest: of weights and configuration; None where only an endpoint is known.
        suite_digest: of every item of the suite.
        chat_template_sha256: of the chat template; None without one.
        system_prompt: what stood before every prompt, if anything.
        decoding: how answers were sampled.
        judges: who judged, the primary judge first.
        labelling_judge: the judge that labelled the model's training data, where the model's folder says so.
        versions: of Python and packages.
        command: what was typed.
        started: time in UTC, ISO 8601.
        seconds: spent so far, over all resumptions.
        counts: prompts, answers, and of these truncated, empty and unparsed ones.
        prompts_digest: of the prompts of every task, by its name.
        sources: where each task's rows came from: place, revision, SHA-256 of a file, number of rows.
        finished: whether every planned batch is there.
    """

    model: str
    suite: str
    model_path: str | None = None
    base_model: str | None = None
    model_digest: str | None = None
    suite_digest: str = ""
    chat_template_sha256: str | None = None
    system_prompt: str | None = None
    decoding: Mapping[str, Any] = field(default_factory=dict)
    judges: tuple[JudgeUsed, ...] = ()
    labelling_judge: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    started: str = ""
    seconds: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)
    prompts_digest: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    finished: bool = True


@dataclass(frozen=True)
class Evaluation:
    """One model on one suite.

    Attributes:
        header: what the run was made of.
        scores: headline figures and aggregates by name; a figure that nothing measured is absent.
        tasks: a row for every figure of every task.
        generations: a record for every sampled answer.
        likelihoods: a record for every item compared by likelihood.
    """

    header: RunHeader
    scores: Mapping[str, Estimate]
    tasks: tuple[TaskScore, ...]
    generations: list[GenerationRecord]
    likelihoods: list[LikelihoodRecord]

    @property
    def model(self) -> str:
        """What tables call the model."""
        return self.header.model

    def save(self, folder: Path) -> None:
        """Write the four files of a run's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_records(folder / GENERATIONS, self.generations)
        write_records(folder / LIKELIHOODS, self.likelihoods)
        self.save_scores(folder)
        write_header(folder, self.header)

    def save_scores(self, folder: Path) -> None:
        """Write ``scores.json``, the one file that can be made again from the others."""
        scores = {
            "scores": {name: asdict(estimate) for name, estimate in self.scores.items()},
            "tasks": [asdict(task) for task in self.tasks],
        }
        write_text(folder / SCORES, json.dumps(scores, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Read what `save` wrote.

        Raises:
            BfpoError: if the folder holds no finished run, or a file of it is no such file.
        """
        header = read_header(folder)
        if header is None:
            raise BfpoError(f"{folder}: holds no evaluation (no {HEADER}); name a folder that 'bfpo evaluate' wrote")
        if not header.finished:
            raise BfpoError(f"{folder}: the evaluation is not finished; run the same 'bfpo evaluate' again to go on")
        scores = json.loads((folder / SCORES).read_text(encoding="utf-8"))
        return cls(
            header=header,
            scores={name: Estimate(**estimate) for name, estimate in scores["scores"].items()},
            tasks=tuple(TaskScore(**(row | {"estimate": Estimate(**row["estimate"])})) for row in scores["tasks"]),
            generations=read_generations(folder / GENERATIONS),
            likelihoods=read_likelihoods(folder / LIKELIHOODS),
        )


def write_header(folder: Path, header: RunHeader) -> None:
    """Write ``run.json``."""
    write_text(folder / HEADER, json.dumps(asdict(header), indent=2, ensure_ascii=False) + "\n")


def read_header(folder: Path) -> RunHeader | None:
    """The header in a run's folder; None where there is no file.

    Raises:
        BfpoError: if the file is no header of an evaluation.
    """
    path = folder / HEADER
    if not path.exists():
        return None
    row = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(row, dict) and isinstance(row.get("judges"), list):
        row["judges"] = tuple(_made(JudgeUsed, judge, str(path)) for judge in row["judges"])
    return _made(RunHeader, row, str(path))


def encode_record(record: GenerationRecord | LikelihoodRecord) -> str:
    """A record as one line of JSON, its end included."""
    return json.dumps(asdict(record), ensure_ascii=False) + "\n"


def write_records(path: Path, records: Iterable[GenerationRecord | LikelihoodRecord]) -> None:
    """Write records, one a line."""
    write_lines(path, map(encode_record, records))


def read_generations(path: Path) -> list[GenerationRecord]:
    """Read records of sampled answers; none where there is no file.

    Raises:
        BfpoError: if a line is no such record.
    """
    records = []
    for where, row in _read_lines(path):
        verdicts = [verdict | {"categories": tuple(verdict["categories"])} for verdict in row.get("verdicts", ())]
        row["verdicts"] = tuple(_made(Verdict, verdict, where) for verdict in verdicts)
        records.append(_made(GenerationRecord, row, where))
    return records


def read_likelihoods(path: Path) -> list[LikelihoodRecord]:
    """Read records of log-probabilities; none where there is no file.

    Raises:
        BfpoError: if a line is no such record.
    """
    tuples = ("choices", "logps", "bytes", "correct", "labels")
    return [
        _made(LikelihoodRecord, row | {name: tuple(row[name]) for name in tuples if name in row}, where)
        for where, row in _read_lines(path)
    ]


_Made = TypeVar("_Made")


def _made(kind: type[_Made], row: Mapping[str, Any], where: str) -> _Made:
    try:
        return kind(**row)
    except TypeError as error:
        known = {entry.name for entry in fields(kind)}  # pyright: ignore[reportArgumentType]
        odd = sorted(set(row) - known) if isinstance(row, dict) else [type(row).__name__]
        what = f"unknown {', '.join(odd)}" if odd else str(error)
        raise BfpoError(f"{where}: no {kind.__name__} of this version ({what}); evaluate again") from error


def _read_lines(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            try:
                yield where, json.loads(line)
            except json.JSONDecodeError as error:
                raise BfpoError(f"{where}: no JSON ({error.msg}); evaluate again") from error
