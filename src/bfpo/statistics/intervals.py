"""Intervals: Wilson's score interval for rates and bounded scores, Student's t for means, both robust to clusters."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95
# Where values don't vary at all, their variance is 0; this keeps the number of items they are worth finite.
_LARGE = 1e12


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int

    def digits(self) -> int:
        """Decimals to print, from 2 to 6, so that no end of the interval that differs from 0 is printed as 0."""
        smallest = min((abs(end) for end in (self.low, self.high) if end), default=1.0)
        return next((digits for digits in range(2, 6) if round(smallest, digits)), 6)


def wilson(successes: float, n: float, confidence: float = CONFIDENCE) -> Estimate:
    """A rate with Wilson's score interval (JASA 22, 1927, p. 209); 0 of n has an upper bound above 0.

    Args:
        successes: number of successes, not necessarily whole (a share of ``n`` from clustered samples).
        n: number of independent items, > 0.
        confidence: of the interval.

    Raises:
        ValueError: if there are no items, or successes are not between 0 and ``n``.
    """
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"a rate needs 0 <= successes <= n and n > 0, not {successes} of {n}")
    rate = successes / n
    center, half = map(float, _wilson(rate, n, float(ndtri((1 + confidence) / 2))))
    return Estimate(rate, max(0.0, min(center - half, rate)), min(1.0, max(center + half, rate)), round(n))


def rate_interval(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, confidence: float = CONFIDENCE
) -> Estimate:
    """A mean of values in [0, 1] with Wilson's interval for as many independent items as they are worth.

    The effective number of items is what gives a binomial rate the variance that the mean has by the cluster-robust
    error, reduced by the squared ratio of the normal to Student's quantile with C - 1 degrees of freedom (as for
    proportions in surveys: Korn and Graubard, Survey Methodology 24, 1998, p. 193). It is at least what the clusters
    would be worth if the items of each were alike, n^2 over the sum of squared sizes, and for values of 0 and 1 at
    most n. Independent zeros and ones have Wilson's interval itself.

    The variance of a rate near 0 or 1 says little, so each bound is the outermost one that the items would have if
    only some of the values were there: those of the clusters with the highest means, for the upper bound. So a count
    never looks better than a lower one, and no interval has a width of 0.

    Args:
        values: [N] values in [0, 1].
        clusters: [N] what each item shares with others, such as its prompt; by default every item is its own.
        confidence: of the interval.
    """
    array, codes = np.clip(np.asarray(values, dtype=float), 0.0, 1.0), cluster_codes(clusters, len(values))
    n, count = len(array), _count(codes)
    if not n:
        raise ValueError("a rate needs at least one value")
    binary = bool(np.isin(array, (0.0, 1.0)).all())
    rate = float(array.mean())
    if binary and count == n:
        return wilson(float(array.sum()), n, confidence)
    if count < 2:
        return Estimate(rate, 0.0, 1.0, n)
    high = _upper_bound(array, codes, binary, confidence)
    low = 1 - _upper_bound(1 - array, codes, binary, confidence)
    return Estimate(rate, max(0.0, min(low, rate)), min(1.0, max(high, rate)), n)


def _upper_bound(values: np.ndarray, codes: np.ndarray, binary: bool, confidence: float) -> float:
    """The largest upper bound over beginnings of the values, those of the clusters with the highest means first."""
    n, sizes = len(values), np.bincount(codes).astype(float)
    means = np.bincount(codes, weights=values) / sizes
    order = np.lexsort((-values, codes, -means[codes]))
    values, codes = values[order], codes[order]
    total = np.cumsum(values)
    begins = np.concatenate([[True], codes[1:] != codes[:-1]])
    own = total - np.maximum.accumulate(np.where(begins, total - values, 0.0))  # running sum within the cluster
    # Sum over clusters of squared sums, and of sums times sizes, as each value is added.
    squares, products = np.cumsum(own**2 - (own - values) ** 2), np.cumsum(values * sizes[codes])
    rates = np.minimum(total / n, 1.0)
    alike, count = effective_clusters(codes), len(sizes)
    spread = np.maximum(squares - 2 * rates * products + rates**2 * float((sizes**2).sum()), 0.0)
    variance = spread * count / (count - 1) / n**2
    probability = (1 + confidence) / 2
    normal, student = float(ndtri(probability)), float(stdtrit(count - 1, probability))
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = np.where(variance > 0, rates * (1 - rates) / variance, _LARGE)
    worth = np.maximum(np.minimum(worth, n if binary else _LARGE) * (normal / student) ** 2, alike)
    worth = np.where((rates <= 0) | (rates >= 1), alike, worth)
    center, half = _wilson(np.concatenate([[0.0], rates]), np.concatenate([[alike], worth]), normal)
    return float((center + half).max())


def mean_interval(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, confidence: float = CONFIDENCE
) -> Estimate:
    """A mean of unbounded values with Student's t interval, its error robust to clusters.

    Args:
        values: one for each item.
        clusters: what each item shares with others; by default every item is its own. At least two different ones.
        confidence: of the interval.

    Raises:
        ValueError: if there are fewer than two clusters.
    """
    array, codes = np.asarray(values, dtype=float), cluster_codes(clusters, len(values))
    if _count(codes) < 2:
        raise ValueError(f"an interval of a mean needs at least 2 independent values, not {_count(codes)}")
    half = t_quantile((1 + confidence) / 2, _count(codes) - 1) * standard_error(array, codes)
    mean = float(array.mean())
    return Estimate(mean, mean - half, mean + half, len(array))


def weighted_mean(estimates: Sequence[Estimate], weights: Sequence[float] | None = None) -> Estimate:
    """A weighted mean of independent figures, from their own intervals.

    Distances from each figure to its bounds are squared and added (Zou and Donner, Statistics in Medicine 27, 2008,
    p. 1693), so the interval stays within the range of the figures and has a width if one of theirs has.

    Args:
        estimates: the figures, of different items.
        weights: of the figures, equal by default.
    """
    share = np.asarray(weights if weights is not None else [1.0] * len(estimates), dtype=float)
    share = share / share.sum()
    value, low, high = (np.array([getattr(e, name) for e in estimates]) for name in ("value", "low", "high"))
    mean = float(share @ value)
    down, up = (float(np.linalg.norm(share * side)) for side in (value - low, high - value))
    return Estimate(mean, mean - down, mean + up, sum(estimate.n for estimate in estimates))


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


def effective_clusters(codes: np.ndarray) -> float:
    """Number of independent items that N items are worth if those of a cluster are alike."""
    sizes = np.bincount(codes)
    return float(sizes.sum()) ** 2 / float((sizes.astype(float) ** 2).sum())


def cluster_codes(clusters: Sequence[Hashable] | None, n: int) -> np.ndarray:
    """[N] numbers of clusters, in the order in which they first occur; every item's own without clusters."""
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"{n} values have {len(clusters)} clusters")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=int)


def t_quantile(probability: float, degrees: float) -> float:
    """Quantile of Student's t."""
    return float(stdtrit(degrees, probability))


def _count(codes: np.ndarray) -> int:
    return int(codes.max()) + 1 if len(codes) else 0


def _wilson(rate: Any, n: Any, quantile: float) -> tuple[Any, Any]:
    """Center and half width of Wilson's interval, of numbers or of arrays."""
    share = quantile**2 / n
    half = quantile / (1 + share) * np.sqrt(rate * (1 - rate) / n + share / (4 * n))
    return (rate + share / 2) / (1 + share), half
