"""Intervals: Wilson for rates, Student's t for means, both clustered where items share a seed prompt or a behaviour."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: float, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """A rate with Wilson's score interval (JASA 22, 1927, p. 209); 0 of n has an upper bound above 0.

    Args:
        successes: how many, not necessarily whole (a share of ``n`` from clustered samples).
        n: of how many independent items, > 0.
        confidence: of the interval.
    """
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"a rate needs 0 <= successes <= n and n > 0, not {successes} of {n}")
    return Estimate(successes / n, *_wilson_bounds(successes / n, n, _normal(confidence)), n)


def rate_interval(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, confidence: float = CONFIDENCE
) -> Estimate:
    """A rate with Wilson's interval, for as many independent items as the clustered ones are worth.

    The effective number is n over the design effect (clustered variance over binomial variance, between 1 and what
    perfectly alike clusters would have), and Student's t with C - 1 degrees stands in for the normal quantile, as for
    proportions in surveys (Korn and Graubard, Survey Methodology 24, 1998, p. 193). At 0 or 1, where the variance says
    nothing, clusters count as perfectly alike.

    Args:
        values: in [0, 1], one for each item.
        clusters: what each item shares with others; by default every item is its own.
        confidence: of the interval.
    """
    array, codes = np.asarray(values, dtype=float), cluster_codes(clusters, len(values))
    n, count = len(array), _count(codes)
    rate = min(1.0, max(0.0, float(array.mean()))) if n else 0.0
    if count == n:
        return wilson(rate * n, n, confidence)
    if count < 2:
        return Estimate(rate, 0.0, 1.0, n)
    binomial = rate * (1 - rate) / n
    alike = float((np.bincount(codes) ** 2).sum()) / n
    effect = alike if binomial == 0 else min(alike, max(1.0, standard_error(array, codes) ** 2 / binomial))
    quantile = t_quantile((1 + confidence) / 2, count - 1)
    return Estimate(rate, *_wilson_bounds(rate, n / effect, quantile), n)


def mean_interval(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, confidence: float = CONFIDENCE
) -> Estimate:
    """A mean with Student's t interval, its error robust to clusters.

    Args:
        values: one for each item.
        clusters: what each item shares with others; by default every item is its own. At least two different ones.
        confidence: of the interval.
    """
    array, codes = np.asarray(values, dtype=float), cluster_codes(clusters, len(values))
    if _count(codes) < 2:
        raise ValueError(f"an interval of a mean needs at least 2 independent values, not {_count(codes)}")
    half = t_quantile((1 + confidence) / 2, _count(codes) - 1) * standard_error(array, codes)
    mean = float(array.mean())
    return Estimate(mean, mean - half, mean + half, len(array))


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Mean of first less second over items that both were measured on, with its t interval, robust to clusters."""
    return mean_interval([a - b for a, b in zip(first, second, strict=True)], clusters, confidence)


def standard_error(values: np.ndarray, codes: np.ndarray) -> float:
    """Standard error of a mean of clustered values.

    The sandwich estimator with the finite-cluster correction C/(C - 1); with clusters of one it is s/sqrt(n). Miller,
    arXiv 2411.00640, appendix A, has it without the correction, inspect_ai's ``stderr(cluster=...)`` with it.

    Args:
        values: [N] values.
        codes: [N] number of each value's cluster, from 0 without gaps; at least two clusters.
    """
    sums = np.bincount(codes, weights=values - values.mean())
    return math.sqrt(float((sums**2).sum()) * len(sums) / (len(sums) - 1)) / len(values)


def cluster_codes(clusters: Sequence[Hashable] | None, n: int) -> np.ndarray:
    """[N] numbers of clusters, in the order in which they first occur; every item's own without clusters."""
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"{n} values have {len(clusters)} clusters")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=int)


@lru_cache(maxsize=1024)
def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t, by bisection of its distribution function.

    Args:
        probability: in (0, 1).
        degrees: of freedom, >= 1.
    """
    low, high = -1e4, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        if t_distribution(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def t_distribution(t: float, degrees: int) -> float:
    """P(T <= t): a finite sum for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(theta)
    if degrees == 1:
        return 0.5 + theta / math.pi
    k = np.arange(3 if degrees % 2 else 2, degrees - 1, 2)
    total = (cosine if degrees % 2 else 1.0) * (1 + float(np.cumprod(cosine * cosine * (k - 1) / k).sum()))
    central = 2 / math.pi * (theta + math.sin(theta) * total) if degrees % 2 else math.sin(theta) * total
    return 0.5 + central / 2


def _count(codes: np.ndarray) -> int:
    return int(codes.max()) + 1 if len(codes) else 0


def _normal(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _wilson_bounds(rate: float, n: float, z: float) -> tuple[float, float]:
    center = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, min(center - half, rate)), min(1.0, max(center + half, rate))
