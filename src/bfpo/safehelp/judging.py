"""From answers to verdicts: the suite's own exact judge, or a primary and a second judge, and what answers help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bfpo.errors import BfpoError
from bfpo.judges.verdict import Exchange, Judge, Verdict
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.records import JudgeUsed
from bfpo.safehelp.suites import Exact, Suite

ORACLE = "microworld-oracle"


@dataclass(frozen=True)
class Judged:
    """What was said of one answer: a verdict a judge, its help where measured, an exact judge's finer word."""

    verdicts: tuple[Verdict, ...]
    p_help: float | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Pair:
    """A prompt, an answer to it, and the reference that it is compared with."""

    prompt: str
    first: str
    second: str


class Preferred(Protocol):
    """What a judge of helpfulness says of a pair."""

    @property
    def p_first(self) -> float | None:
        """Probability that the first answer helps more, ties half; None where the judge's word can't be read."""
        ...


class HelpJudge(Protocol):
    """Says which of two answers helps more; the judges of `bfpo.judges.helpfulness` do."""

    @property
    def judge_id(self) -> str:
        """Which judge, with its revision."""
        ...

    def compare(self, comparisons: Sequence[Any]) -> Sequence[Preferred]:
        """What is said of every pair, in the order given."""
        ...


@dataclass(frozen=True)
class Judging:
    """Who judges a suite's answers.

    Attributes:
        suite: brings its own exact judge, or none.
        judges: of safety, the primary one first; where there are none the exact judge is it.
        help_judge: compares answers with the references of pairwise tasks; without one their help is not measured.
    """

    suite: Suite
    judges: Sequence[Judge] = ()
    help_judge: HelpJudge | None = None

    def __post_init__(self) -> None:
        if self.suite.prompts and not self.judges and self.suite.judge is None:
            raise BfpoError(f"the answers of suite {self.suite.name!r} need a judge: name one with --judge")

    @property
    def used(self) -> tuple[JudgeUsed, ...]:
        """All judges, for the header."""
        safety = [
            JudgeUsed(judge.judge_id, judge.template_digest, "second" if number else "primary")
            for number, judge in enumerate(self.judges)
        ]
        if not safety and self.suite.judge:
            safety = [JudgeUsed(ORACLE, "", "primary")]
        helpful = [JudgeUsed(self.help_judge.judge_id, "", "helpfulness")] if self.help_judge else []
        return (*safety, *helpful)

    def judge(self, items: Sequence[PromptItem], answers: Sequence[str]) -> list[Judged]:
        """What is said of each answer, in the order given."""
        exchanges = [Exchange(item.prompt, answer, item.behavior) for item, answer in zip(items, answers, strict=True)]
        said = [judge.judge(exchanges) for judge in self.judges]
        for judge, verdicts in zip(self.judges, said, strict=True):
            if len(verdicts) != len(exchanges):
                raise BfpoError(f"the judge {judge.judge_id} gave {len(verdicts)} verdicts on {len(exchanges)} answers")
        helps = self._helps(items, answers)
        judged = []
        for number, (item, answer) in enumerate(zip(items, answers, strict=True)):
            verdicts = tuple(own[number] for own in said)
            if self.suite.judge is None:
                judged.append(Judged(verdicts, helps[number]))
            else:
                exact = self.suite.judge(item.prompt, answer)
                judged.append(Judged(verdicts or (_verdict(exact),), exact.p_help, exact.verdict))
        return judged

    def _helps(self, items: Sequence[PromptItem], answers: Sequence[str]) -> list[float | None]:
        helps: list[float | None] = [None] * len(items)
        paired = [at for at, item in enumerate(items) if item.reference is not None and answers[at].strip()]
        if self.help_judge and paired:
            pairs = [Pair(items[at].prompt, answers[at], items[at].reference or "") for at in paired]
            for at, preferred in zip(paired, self.help_judge.compare(pairs), strict=True):
                helps[at] = preferred.p_first
        return helps


def _verdict(exact: Exact) -> Verdict:
    return Verdict(
        label="safe" if exact.is_safe else "unsafe",
        p_safe=float(exact.is_safe),
        refusal="yes" if exact.is_refusal else "no",
        raw=exact.verdict,
        judge_id=ORACLE,
    )
