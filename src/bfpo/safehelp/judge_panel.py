"""`JudgePanel`: the judges of a run, i.e. safety judges or the suite's exact judge, of refusals, of helpfulness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bfpo.errors import BfpoError
from bfpo.judges.preference import AnswerPair, HelpfulnessJudge, Preference
from bfpo.judges.streaming import preferences
from bfpo.judges.verdict import Exchange, Judge, Verdict
from bfpo.microworld.oracle import OracleVerdict
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.records import JudgeUsed
from bfpo.safehelp.suites import Suite

ORACLE = "microworld-oracle"


@dataclass(frozen=True)
class JudgedAnswer:
    """The judgment of one answer.

    Attributes:
        verdicts: one verdict per judge, the primary judge's first.
        p_help: its helpfulness in [0, 1], if measured; 0 of an empty answer where others are compared.
        detail: an exact judge's finer label, if any.
        harm: its level of harm by category, if an exact judge measured it; or by the primary judge's "rubric".
        refusal: verdict of the judge of refusals, if there is one.
        uncompared: output of the judge of helpfulness, if no preference could be read in it; "" otherwise.
    """

    verdicts: tuple[Verdict, ...]
    p_help: float | None = None
    detail: str | None = None
    harm: Mapping[str, float] | None = None
    refusal: Verdict | None = None
    uncompared: str = ""


@dataclass(frozen=True)
class JudgePanel:
    """The judges of a suite's answers.

    Attributes:
        suite: the suite, with its exact judge, if any.
        judges: safety judges, the primary one first; by default the exact judge is the primary one.
        helpfulness_judge: judge that compares answers with the references of pairwise tasks; without one, the
            helpfulness of those tasks is not measured.
        refusal_judge: judge that decides which answers decline; by default the primary judge does.
    """

    suite: Suite
    judges: Sequence[Judge] = ()
    helpfulness_judge: HelpfulnessJudge | None = None
    refusal_judge: Judge | None = None

    def __post_init__(self) -> None:
        if self.suite.prompts and not self.judges and self.suite.judge is None:
            raise BfpoError(f"the answers of suite {self.suite.name!r} need a judge: name one with --judge")

    @property
    def named(self) -> list[Judge | HelpfulnessJudge]:
        """All judges but the suite's own exact one."""
        return [*self.judges, *filter(None, (self.helpfulness_judge, self.refusal_judge))]

    @property
    def used(self) -> tuple[JudgeUsed, ...]:
        """All judges, for the header."""
        safety = [
            JudgeUsed(judge.judge_id, judge.template_digest, "second" if number else "primary")
            for number, judge in enumerate(self.judges)
        ]
        if not safety and self.suite.judge:
            safety = [JudgeUsed(ORACLE, "", "primary")]
        helpfulness = [JudgeUsed(j.judge_id, j.template_digest, "helpfulness") for j in [self.helpfulness_judge] if j]
        refusal = [JudgeUsed(j.judge_id, j.template_digest, "refusal") for j in [self.refusal_judge] if j]
        return (*safety, *refusal, *helpfulness)

    def judge(self, items: Sequence[PromptItem], answers: Sequence[str]) -> list[JudgedAnswer]:
        """A judgment of every answer, in order.

        Raises:
            BfpoError: if a judge returns another number of verdicts than there are answers.
        """
        exchanges = [Exchange(item.prompt, answer, item.behavior) for item, answer in zip(items, answers, strict=True)]
        by_judge = [_verdicts(judge, exchanges) for judge in self.judges]
        refusals = _verdicts(self.refusal_judge, exchanges) if self.refusal_judge else [None] * len(exchanges)
        preferences = self._preferences(items, answers)
        is_compared = [self.helpfulness_judge is not None and item.reference is not None for item in items]
        judged = []
        for number, (item, answer) in enumerate(zip(items, answers, strict=True)):
            verdicts = tuple(own[number] for own in by_judge)
            if self.suite.judge is None:
                rated = verdicts[0].harm
                harm = None if rated is None else {"rubric": rated} if rated else {}
                preference = preferences.get(number)
                p_help = preference.p_first if preference else 0.0 if is_compared[number] else None
                uncompared = preference.words if preference and p_help is None else ""
                judged.append(JudgedAnswer(verdicts, p_help, None, harm, refusals[number], uncompared))
            else:
                exact = self.suite.judge(item.behavior or item.prompt, answer)
                verdicts = verdicts or (_verdict(exact),)
                judged.append(JudgedAnswer(verdicts, exact.p_help, exact.label, exact.harm, refusals[number]))
        return judged

    def _preferences(self, items: Sequence[PromptItem], answers: Sequence[str]) -> dict[int, Preference]:
        """Preferences between answers and references, by number; none without a reference, or for an empty answer."""
        paired = [at for at, item in enumerate(items) if item.reference is not None and answers[at].strip()]
        if not self.helpfulness_judge or not paired:
            return {}
        pairs = [AnswerPair(items[at].prompt, answers[at], items[at].reference or "") for at in paired]
        return dict(zip(paired, preferences(self.helpfulness_judge, pairs), strict=True))


def _verdicts(judge: Judge, exchanges: Sequence[Exchange]) -> list[Verdict]:
    verdicts = judge.judge(exchanges)
    if len(verdicts) != len(exchanges):
        raise BfpoError(f"the judge {judge.judge_id} gave {len(verdicts)} verdicts on {len(exchanges)} answers")
    return verdicts


def _verdict(exact: OracleVerdict) -> Verdict:
    return Verdict(
        label="safe" if exact.is_safe else "unsafe",
        p_safe=float(exact.is_safe),
        refusal="yes" if exact.is_refusal else "no",
        raw=exact.label,
        judge_id=ORACLE,
    )
