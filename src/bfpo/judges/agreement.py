"""How far a judge's words agree with people's or another judge's, and rates corrected for its known error.

Answers to one prompt resemble each other, so every interval counts prompts and not answers: rates have Wilson's
interval on the effective number of answers, other figures a bootstrap over prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from bfpo.errors import BfpoError
from bfpo.statistics.intervals import CONFIDENCE, Estimate, wilson

DRAWS = 1000


def kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's kappa of two sets of labels; NaN if both say the same one thing of everything (Cohen 1960)."""
    a, b = np.asarray(first), np.asarray(second)
    chance = sum(float((a == label).mean() * (b == label).mean()) for label in np.unique(np.concatenate([a, b])))
    return math.nan if chance == 1 else (float((a == b).mean()) - chance) / (1 - chance)


def clustered_rate(hits: np.ndarray, clusters: Sequence[Hashable]) -> Estimate | None:
    """A share with Wilson's interval on the effective number of answers.

    That is their number over the design effect: the variance of the share by clusters, over what independent answers
    would have (Kish 1965). Where all answers are alike it can't be seen, and clusters are counted instead.

    Args:
        hits: [N] bool.
        clusters: [N] what answers share, as a rule their prompt.

    Returns:
        None for no answers; ``n`` is the effective number, rounded down.
    """
    n = len(hits)
    if not n:
        return None
    rate = float(np.mean(hits))
    members = _codes(clusters)
    count = int(members.max()) + 1
    effective: float = count
    if 0 < rate < 1 and count > 1:
        sums = np.bincount(members, weights=np.asarray(hits, dtype=float) - rate)
        variance = count / (count - 1) * float((sums**2).sum()) / n**2
        effective = n if variance == 0 else min(n, rate * (1 - rate) / variance)
    effective = max(1, math.floor(effective))
    estimate = wilson(rate * effective, effective)
    return Estimate(rate, estimate.low, estimate.high, effective)


def bootstrapped(
    statistic: Callable[[np.ndarray], float],
    clusters: Sequence[Hashable],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate | None:
    """A figure with its percentile interval over resampled clusters.

    Args:
        statistic: of the indices of answers, with repeats.
        clusters: [N] what answers share.
        draws: of the bootstrap.
        seed: of the draws.

    Returns:
        None if the figure doesn't exist (NaN); draws in which it doesn't are left out. ``n`` is the number of clusters.
    """
    if not len(clusters):
        return None
    members = _codes(clusters)
    value = statistic(np.arange(len(members)))
    if math.isnan(value):
        return None
    order = np.argsort(members, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(members))[:-1])
    random = np.random.default_rng(seed)
    drawn = np.array(
        [
            statistic(np.concatenate([parts[at] for at in random.integers(len(parts), size=len(parts))]))
            for _ in range(draws)
        ]
    )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Estimate(value, min(value, float(low)), max(value, float(high)), len(parts))


@dataclass(frozen=True)
class JudgeError:
    """How often a judge is right about answers of either kind.

    Attributes:
        sensitivity: share of unsafe answers that it calls unsafe.
        specificity: share of safe answers that it calls safe.
    """

    sensitivity: Estimate
    specificity: Estimate


def judge_error(unsafe: np.ndarray, called_unsafe: np.ndarray, clusters: Sequence[Hashable]) -> JudgeError:
    """A judge's error, from answers that people labelled.

    Args:
        unsafe: [N] bool, what is so.
        called_unsafe: [N] bool, what the judge says; unparsed verdicts left out.
        clusters: [N] what answers share.

    Raises:
        BfpoError: if there are no answers of one kind.
    """
    truth, said = np.asarray(unsafe, dtype=bool), np.asarray(called_unsafe, dtype=bool)
    keys = np.asarray(_codes(clusters))
    sensitivity = clustered_rate(said[truth], keys[truth].tolist())
    specificity = clustered_rate(~said[~truth], keys[~truth].tolist())
    if sensitivity is None or specificity is None:
        raise BfpoError("a judge's error needs labelled answers of both kinds: label some safe and some unsafe ones")
    return JudgeError(sensitivity, specificity)


def corrected_rate(observed: Estimate, error: JudgeError, *, draws: int = 10_000, seed: int = 0) -> Estimate:
    """The share that is unsafe, from the share that a judge calls unsafe (Rogan and Gladen 1978), in [0, 1].

    The interval is a parametric bootstrap over both samples, the judged one and the one that people labelled, of the
    three shares with one success and one failure added to each (Lang and Reiczigel 2014), so that a judge that never
    erred among few answers isn't taken to be perfect. A draw in which the judge would be no better than chance speaks
    for 0 as well as for 1.

    Args:
        observed: share called unsafe; its ``n`` is the (effective) number of answers.
        error: of the judge.
        draws: of the bootstrap.
        seed: of the draws.

    Raises:
        BfpoError: if the judge is no better than chance: then nothing follows from what it says.
    """
    sensitivity, specificity = error.sensitivity.value, error.specificity.value
    if sensitivity + specificity <= 1:
        raise BfpoError(
            f"sensitivity {sensitivity:.3f} and specificity {specificity:.3f} add up to no more than 1: the judge is "
            "no better than chance, so no rate can be corrected for its error; use another judge"
        )
    value = (observed.value + specificity - 1) / (sensitivity + specificity - 1)
    random = np.random.default_rng(seed)
    rate, se, sp = (_resampled(each, random, draws) for each in (observed, error.sensitivity, error.specificity))
    informative = se + sp > 1
    drawn = np.clip((rate + sp - 1) / np.where(informative, se + sp - 1, 1.0), 0, 1)
    tail = (1 - CONFIDENCE) / 2
    low = float(np.quantile(np.where(informative, drawn, 0.0), tail))
    high = float(np.quantile(np.where(informative, drawn, 1.0), 1 - tail))
    clipped = min(1.0, max(0.0, value))
    return Estimate(clipped, min(low, clipped), max(high, clipped), observed.n)


def _resampled(estimate: Estimate, random: np.random.Generator, draws: int) -> np.ndarray:
    n = estimate.n + 2
    return random.binomial(n, (estimate.value * estimate.n + 1) / n, size=draws) / n


def _codes(clusters: Sequence[Hashable]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.int64)
