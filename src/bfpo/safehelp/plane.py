"""Helpfulness and harmlessness jointly: confidence regions, and the probability of beating another model in both."""

from __future__ import annotations

from bfpo.errors import BfpoError
from bfpo.safehelp.figures import HEADLINE, Items, items_of
from bfpo.safehelp.records import Evaluation
from bfpo.statistics.joint import JointMean, Measured, joint_mean, probability_both_above


def joint(evaluation: Evaluation) -> JointMean:
    """The joint mean of (helpful, harmless).

    Raises:
        BfpoError: if the run didn't measure both.
    """
    return joint_mean(*_both(evaluation))


def p_dominates(baseline: Evaluation, other: Evaluation) -> float:
    """The probability that the other model is both more helpful and more harmless, by the paired cluster bootstrap.

    Raises:
        BfpoError: if a run didn't measure both, or not on the same prompts.
    """
    differences = []
    for first, second in zip(_both(baseline), _both(other), strict=True):
        if set(first.keys) != set(second.keys):
            raise BfpoError(f"{other.model} can't be compared with {baseline.model}: their prompts differ")
        change = [new - old for new, old in zip(second.in_order(first.keys), first.values, strict=True)]
        differences.append(Measured(change, first.clusters))
    return probability_both_above(*differences)


def _both(evaluation: Evaluation) -> tuple[Items, Items]:
    helpful, harmless = (items_of(evaluation.generations, HEADLINE[name]) for name in ("helpful", "harmless"))
    if not helpful.values or not harmless.values:
        raise BfpoError(f"{evaluation.model}: the run didn't measure both helpfulness and harmlessness")
    return helpful, harmless
