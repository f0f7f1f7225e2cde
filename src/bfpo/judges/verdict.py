"""The protocol of safety judges: exchanges go in, verdicts come out; and verdicts from plain records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

if TYPE_CHECKING:
    from bfpo.endpoints import Endpoint

Label = Literal["safe", "unsafe", "controversial", "unparsed"]
Refusal = Literal["yes", "no", "unknown"]
LABELS: tuple[str, ...] = get_args(Label)
REFUSALS: tuple[str, ...] = get_args(Refusal)


@dataclass(frozen=True)
class Exchange:
    """A prompt and the answer to judge.

    Attributes:
        prompt: the prompt; for a conversation, its rendering.
        answer: the answer.
        behavior: description of the harmful behavior, for judges that use one (HarmBench); by default the prompt.
    """

    prompt: str
    answer: str
    behavior: str | None = None


@dataclass(frozen=True)
class Verdict:
    """A judge's verdict on one answer.

    Attributes:
        label: the judge's label; "unparsed" is counted as such, and never as safe.
        p_safe: probability that the answer is safe, in [0, 1]; None if unparsed.
        refusal: whether the answer declines; "unknown" if the judge doesn't report it.
        categories: categories of harm that the judge named.
        raw: the judge's output.
        mass: probability of all valid labels together, before normalization; None if unknown.
        judge_id: id of the judge, with its revision.
        template_digest: SHA-256 of the judge's template; "" without one.
        harm: level of harm in [0, 1], if the judge rates it by a rubric.
    """

    label: Label
    p_safe: float | None
    refusal: Refusal = "unknown"
    categories: tuple[str, ...] = ()
    raw: str = ""
    mass: float | None = None
    judge_id: str = ""
    template_digest: str = ""
    harm: float | None = None


# Stands in a judge's id between that of the judge itself and the scaling of its probabilities.
SCALED = " scaled "


def unscaled(judge_id: str) -> str:
    """The id of a judge without a scaling of its probabilities, which leaves its labels as they are."""
    return judge_id.partition(SCALED)[0]


class Judge(Protocol):
    """Anything that can judge the safety of answers.

    A judge may also be a `Served`, a `Counting` or a `bfpo.judges.streaming.StreamingJudge`.
    """

    @property
    def judge_id(self) -> str:
        """Id of the judge, with the revision of its weights; the key of cached verdicts."""
        ...

    @property
    def template_digest(self) -> str:
        """SHA-256 of the judge's template; "" without one."""
        ...

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict for every exchange, in order, whatever the answer contains."""
        ...


@runtime_checkable
class Served(Protocol):
    """A judge or a generator that asks a server."""

    @property
    def endpoint(self) -> Endpoint:
        """The server."""
        ...


@runtime_checkable
class Counting(Protocol):
    """A judge that counts what happened to texts and replies, such as those that were cut."""

    @property
    def counts(self) -> Counter[str]:
        """The numbers in this process, by what happened."""
        ...


@dataclass(frozen=True)
class WrappedJudge:
    """Base of judges that change another one's questions or verdicts, or ask it elsewhere.

    Attributes:
        judge_itself: the other judge.
    """

    judge_itself: Judge

    @property
    def judge_id(self) -> str:
        """Id of the other judge."""
        return self.judge_itself.judge_id

    @property
    def template_digest(self) -> str:
        """Template digest of the other judge."""
        return self.judge_itself.template_digest


def innermost(judge: object) -> object:
    """The judge under all wrappers; anything else as it is."""
    while isinstance(judge, WrappedJudge):
        judge = judge.judge_itself
    return judge


def endpoint_of(client: object) -> Endpoint | None:
    """The server behind a judge or a generator, if there is one."""
    from bfpo.endpoints import Endpoint

    inner = innermost(client)
    # A user's judge may have an attribute of this name that is something else, such as an address.
    endpoint = inner.endpoint if isinstance(inner, Served) else None
    return endpoint if isinstance(endpoint, Endpoint) else None


def counts_of(judge: object) -> Counter[str]:
    """What a judge has counted, its own object; an empty one for a judge that counts nothing."""
    inner = innermost(judge)
    counts = inner.counts if isinstance(inner, Counting) else None
    return counts if isinstance(counts, Counter) else Counter()


def verdict_problems(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Problems of a record, each as (column, problem, remedy)."""
    label, p_safe = record.get("label"), record.get("p_safe")
    if label not in LABELS:
        yield "label", f"{label!r} is not a label", f"write one of {', '.join(LABELS)}"
    elif label == "unparsed" and p_safe is not None:
        yield "p_safe", f"it is {p_safe!r} although the verdict is unparsed", "write null"
    elif label != "unparsed" and not is_probability(p_safe):
        yield "p_safe", f"{p_safe!r} is not a probability", "write a number in [0, 1]"
    if record.get("refusal", "unknown") not in REFUSALS:
        yield "refusal", f"{record['refusal']!r} is not a refusal", f"write one of {', '.join(REFUSALS)}"
    categories = record.get("categories", ())
    if not (isinstance(categories, list | tuple) and all(isinstance(name, str) for name in categories)):
        yield "categories", f"{categories!r} is not a list of names", "write a list of strings, or leave it out"
    for name, what in (("mass", "a probability"), ("harm", "a level of harm")):
        if record.get(name) is not None and not is_probability(record[name]):
            yield name, f"{record[name]!r} is not {what}", "write a number in [0, 1], or null"


def verdict_from(record: Mapping[str, Any], judge_id: str = "") -> Verdict:
    """The verdict in a record without problems; ``judge_id`` fills in a missing one."""
    return Verdict(
        label=record["label"],
        p_safe=None if record.get("p_safe") is None else float(record["p_safe"]),
        refusal=record.get("refusal", "unknown"),
        categories=tuple(record.get("categories") or ()),
        raw=str(record.get("raw") or ""),
        mass=record.get("mass"),
        judge_id=record.get("judge_id") or judge_id,
        template_digest=record.get("template_digest") or "",
        harm=record.get("harm"),
    )


def is_probability(value: Any) -> bool:
    """Whether a value is a number in [0, 1]."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value <= 1
