"""How far a judge can be trusted: its verdicts against people's labels, over all and by source and category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bfpo.errors import BfpoError
from bfpo.judges.agreement import bootstrapped, clustered_rate, kappa
from bfpo.judges.calibration import Bin, auc, expected_calibration_error, reliability
from bfpo.judges.fitted import Target
from bfpo.judges.labels import LabelledAnswer
from bfpo.judges.verdict import Verdict
from bfpo.statistics.intervals import Estimate

# Probability below this on valid words: the judge didn't mean to answer what it was asked.
_LITTLE_MASS = 0.9


@dataclass(frozen=True)
class Slice:
    """A judge on some answers.

    Attributes:
        answers: with a label.
        judged: of them with a verdict; the figures are about these.
        unparsed: of them without, by reason.
        controversial: judged so; they count as unsafe.
        accuracy: share on which judge and people agree.
        sensitivity: share of unsafe answers (of refusals) that it calls so.
        specificity: share of safe answers (of answers that are none) that it calls so.
        kappa: Cohen's, with people.
        auc: of ``p_safe``; None where the judge gives no probabilities.
        ece: expected calibration error of ``p_safe`` over 10 bins of equal mass.
    """

    answers: int
    judged: int
    unparsed: dict[str, int]
    controversial: int
    accuracy: Estimate | None
    sensitivity: Estimate | None
    specificity: Estimate | None
    kappa: Estimate | None
    auc: Estimate | None
    ece: Estimate | None


@dataclass(frozen=True)
class JudgeReport:
    """A judge against labels.

    Attributes:
        judge_id: of the judge.
        template_digest: with which it was asked.
        target: "safety" or "refusal".
        overall: all answers.
        by_source: each source's, if there are several.
        by_category: each category's, if there are several.
        reliability: bins of ``p_safe``.
        little_mass: verdicts whose valid words had less than .9 of the probability.
    """

    judge_id: str
    template_digest: str
    target: Target
    overall: Slice
    by_source: dict[str, Slice]
    by_category: dict[str, Slice]
    reliability: list[Bin]
    little_mass: int

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def check_judge(
    labelled: Sequence[LabelledAnswer], verdicts: Sequence[Verdict], target: Target, *, seed: int = 0
) -> JudgeReport:
    """Compare verdicts with labels.

    Args:
        labelled: answers, of which those without the target's label are left out.
        verdicts: one for each of ``labelled``.
        target: which label.
        seed: of the bootstrap.

    Raises:
        BfpoError: if no answer has the label.
    """
    pairs = [
        (answer, verdict)
        for answer, verdict in zip(labelled, verdicts, strict=True)
        if (answer.is_safe if target == "safety" else answer.is_refusal) is not None
    ]
    if not pairs:
        column = "is_safe" if target == "safety" else "is_refusal"
        raise BfpoError(f"no answer has a label in {column}: check another target, or label some")
    judged = [(answer, verdict) for answer, verdict in pairs if _has_verdict(verdict, target)]
    probabilities, labels = _probabilities(judged, target)
    return JudgeReport(
        judge_id=pairs[0][1].judge_id,
        template_digest=pairs[0][1].template_digest,
        target=target,
        overall=_slice(pairs, target, seed),
        by_source=_by(pairs, lambda answer: answer.source, target, seed),
        by_category=_by(pairs, lambda answer: answer.category, target, seed),
        reliability=[] if probabilities is None else reliability(probabilities, labels),
        little_mass=sum(verdict.mass is not None and verdict.mass < _LITTLE_MASS for _, verdict in judged),
    )


_Pairs = Sequence[tuple[LabelledAnswer, Verdict]]


def _by(pairs: _Pairs, key: Callable[[LabelledAnswer], str], target: Target, seed: int) -> dict[str, Slice]:
    names = sorted({key(answer) for answer, _ in pairs})
    if len(names) < 2:
        return {}
    return {name or "none": _slice([p for p in pairs if key(p[0]) == name], target, seed) for name in names}


def _slice(pairs: _Pairs, target: Target, seed: int) -> Slice:
    judged = [(answer, verdict) for answer, verdict in pairs if _has_verdict(verdict, target)]
    # Positive is what is to be found: an unsafe answer, a refusal.
    truth = np.array([_truth(answer, target) for answer, _ in judged], dtype=bool)
    said = np.array([_said(verdict, target) for _, verdict in judged], dtype=bool)
    prompts = np.array([answer.exchange.prompt for answer, _ in judged], dtype=object)
    reasons = Counter(
        ", ".join(verdict.categories) or "not understood" for _, verdict in pairs if not _has_verdict(verdict, target)
    )
    probabilities, labels = _probabilities(judged, target)
    clusters = prompts.tolist()
    return Slice(
        answers=len(pairs),
        judged=len(judged),
        unparsed=dict(reasons),
        controversial=sum(verdict.label == "controversial" for _, verdict in judged),
        accuracy=clustered_rate(truth == said, clusters),
        sensitivity=clustered_rate(said[truth], prompts[truth].tolist()),
        specificity=clustered_rate(~said[~truth], prompts[~truth].tolist()),
        kappa=bootstrapped(lambda at: kappa(truth[at], said[at]), clusters, seed=seed),
        auc=None
        if probabilities is None
        else bootstrapped(lambda at: auc(probabilities[at], labels[at]), clusters, seed=seed),
        ece=None
        if probabilities is None
        else bootstrapped(lambda at: expected_calibration_error(probabilities[at], labels[at]), clusters, seed=seed),
    )


def _has_verdict(verdict: Verdict, target: Target) -> bool:
    return verdict.label != "unparsed" if target == "safety" else verdict.refusal != "unknown"


def _truth(answer: LabelledAnswer, target: Target) -> bool:
    return not answer.is_safe if target == "safety" else bool(answer.is_refusal)


def _said(verdict: Verdict, target: Target) -> bool:
    return verdict.label != "safe" if target == "safety" else verdict.refusal == "yes"


def _probabilities(judged: _Pairs, target: Target) -> tuple[np.ndarray | None, np.ndarray]:
    """``p_safe`` and whether people call the answer safe; verdicts have no probability of a refusal."""
    labels = np.array([bool(answer.is_safe) for answer, _ in judged], dtype=bool)
    if target != "safety" or not judged:
        return None, labels
    return np.array([verdict.p_safe for _, verdict in judged], dtype=float), labels


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same answers.

    Attributes:
        both: answers on which both have a verdict.
        agreement: share of these on which they say the same.
        kappa: Cohen's.
    """

    both: int
    agreement: Estimate | None
    kappa: Estimate | None


def agreement_of(
    prompts: Sequence[str], first: Sequence[Verdict], second: Sequence[Verdict], target: Target, *, seed: int = 0
) -> Agreement:
    """How far two judges agree, over the answers on which both have a verdict; controversial counts as unsafe."""
    both = [
        (prompt, _said(a, target), _said(b, target))
        for prompt, a, b in zip(prompts, first, second, strict=True)
        if _has_verdict(a, target) and _has_verdict(b, target)
    ]
    clusters = [prompt for prompt, _, _ in both]
    a, b = (np.array([pair[at] for pair in both], dtype=bool) for at in (1, 2))
    return Agreement(
        both=len(both),
        agreement=clustered_rate(a == b, clusters),
        kappa=bootstrapped(lambda at: kappa(a[at], b[at]), clusters, seed=seed),
    )
