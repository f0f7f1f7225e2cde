"""What a judge is asked and what it says: the protocol of everything that calls an answer safe or unsafe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Label = Literal["safe", "unsafe", "controversial", "unparsed"]
Refusal = Literal["yes", "no", "unknown"]


@dataclass(frozen=True)
class Exchange:
    """A prompt and the answer to be judged.

    Attributes:
        prompt: what was asked; of a conversation, its rendering.
        answer: the answer, as it was given.
        behavior: what a harmful answer would do, for judges that are told (HarmBench); by default the prompt.
    """

    prompt: str
    answer: str
    behavior: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one answer.

    Attributes:
        label: the judge's word; "unparsed" is a third state that is counted, and never safe.
        p_safe: probability that the answer is safe, in [0, 1]; None if unparsed.
        refusal: whether the answer declines, where the judge says so.
        categories: kinds of harm that the judge named.
        raw: the judge's own output.
        mass: share of the probability that fell on valid words before it was renormalised; None where there is none.
        judge_id: which judge, with its revision.
        template_digest: SHA-256 of the template that asked it; "" where there is none.
    """

    label: Label
    p_safe: float | None
    refusal: Refusal = "unknown"
    categories: tuple[str, ...] = ()
    raw: str = ""
    mass: float | None = None
    judge_id: str = ""
    template_digest: str = ""


class Judge(Protocol):
    """Anything that calls answers safe or unsafe."""

    @property
    def judge_id(self) -> str:
        """Which judge, with the revision of its weights; verdicts are cached under it."""
        ...

    @property
    def template_digest(self) -> str:
        """SHA-256 of the template that asks it; "" where there is none."""
        ...

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """A verdict for every exchange, in the order given; none is left out, whatever the answer holds."""
        ...
