"""The protocol of judges of helpfulness: pairs of answers go in, preferences come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

Choice = Literal["first", "second", "tie", "unparsed"]
CHOICES: tuple[str, ...] = get_args(Choice)


@dataclass(frozen=True)
class AnswerPair:
    """A prompt and two answers to it."""

    prompt: str
    first: str
    second: str


@dataclass(frozen=True)
class Preference:
    """A judge's preference between two answers.

    Attributes:
        choice: the more helpful answer; "unparsed" is counted as such, and never as a tie.
        p_first: probability that the first answer helps more, a tie counting 1/2; None if unparsed.
        raw: the judge's outputs, or the rewards, in the order of the requests.
        judge_id: id of the judge, with its revision.
    """

    choice: Choice
    p_first: float | None
    raw: tuple[str, ...]
    judge_id: str

    @property
    def words(self) -> str:
        """The different outputs in one short line, for messages."""
        return " ".join(" / ".join(dict.fromkeys(self.raw)).split())[:200] or "empty output"


class HelpfulnessJudge(Protocol):
    """Anything that can compare the helpfulness of two answers."""

    @property
    def judge_id(self) -> str:
        """Id of the judge, with the revision of its weights; part of the key of cached preferences."""
        ...

    @property
    def template_digest(self) -> str:
        """SHA-256 of the judge's question and settings; "" without any."""
        ...

    def compare(self, pairs: Sequence[AnswerPair], /) -> Sequence[Preference]:
        """One preference for every pair, in order."""
        ...


def preference_from(record: Mapping[str, Any]) -> Preference:
    """The preference in a record of JSON's types."""
    return Preference(record["choice"], record["p_first"], tuple(record["raw"]), record["judge_id"])
