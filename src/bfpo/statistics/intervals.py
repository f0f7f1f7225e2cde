"""Intervals: Wilson for rates, Student's t for means, both clustered by prompt where answers share one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of independent items behind it."""

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
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / n
    center = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return Estimate(rate, max(0.0, min(center - half, rate)), min(1.0, max(center + half, rate)), n)


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """A mean with Student's t interval.

    Args:
        values: one for each independent item; at least two.
        confidence: of the interval.
    """
    if len(values) < 2:
        raise ValueError(f"an interval of a mean needs at least 2 values, not {len(values)}")
    array = np.asarray(values, dtype=float)
    half = t_quantile((1 + confidence) / 2, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array))
    mean = float(array.mean())
    return Estimate(mean, mean - float(half), mean + float(half), len(array))


def paired_difference(first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Mean of first less second over items that both were measured on, with its t interval."""
    return mean_interval([a - b for a, b in zip(first, second, strict=True)], confidence)


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t, by bisection of its distribution function.

    Args:
        probability: in (0, 1).
        degrees: of freedom, >= 1.
    """
    low, high = -1e4, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        if _t_distribution(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_distribution(t: float, degrees: int) -> float:
    """P(T <= t): a finite sum for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(theta)
    if degrees == 1:
        return 0.5 + theta / math.pi
    term = cosine if degrees % 2 else 1.0
    total = term
    for k in range(3 if degrees % 2 else 2, degrees - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    central = 2 / math.pi * (theta + math.sin(theta) * total) if degrees % 2 else math.sin(theta) * total
    return 0.5 + central / 2
