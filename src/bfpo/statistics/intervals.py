"""Cluster-robust intervals: Wilson's score interval for rates and bounded scores, Student's t for means."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95
# Probability below the upper bound of an interval.
UPPER = (1 + CONFIDENCE) / 2
_NORMAL = float(ndtri(UPPER))
# Cap on the effective number of items, which is infinite if values don't vary.
_LARGE = 1e12
# How far rounding may take a share out of [0, 1].
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int

    def digits(self) -> int:
        """Decimals to print, from 2 to 6, so that a nonzero end of the interval is not printed as 0."""
        smallest = min((abs(end) for end in (self.low, self.high) if end), default=1.0)
        return next((digits for digits in range(2, 6) if round(smallest, digits)), 6)


def wilson(successes: float, n: float) -> Estimate:
    """A rate with Wilson's score interval (JASA 22, 1927, p. 209); 0 of n has an upper bound above 0.

    Args:
        successes: number of successes; fractional for clustered samples.
        n: number of independent items, > 0.

    Raises:
        ValueError: if there are no items, or successes are not between 0 and ``n``.
    """
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"a rate needs 0 <= successes <= n and n > 0, not {successes} of {n}")
    rate = successes / n
    center, half = map(float, _wilson(rate, n))
    return Estimate(rate, max(0.0, min(center - half, rate)), min(1.0, max(center + half, rate)), round(n))


def items_to_show(limit: float) -> int:
    """The smallest number of independent items of which none succeeds that shows a rate of at most ``limit``.

    It is the first one at which `wilson` has an upper bound within the limit, which lies in (0, 1).
    """
    return math.ceil(_NORMAL**2 * (1 - limit) / limit)


def rate_interval(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """A mean of values in [0, 1] with Wilson's interval for the effective number of independent items.

    The effective number is that of a binomial rate whose variance equals the mean's cluster-robust variance, times the
    squared ratio of the normal to Student's quantile with C - 1 degrees of freedom (as for proportions in surveys: Korn
    and Graubard, Survey Methodology 24, 1998, p. 193). It is at least the value for identical items within clusters,
    n^2 over the sum of squared cluster sizes, and for values of 0 and 1 at most n. For independent zeros and ones the
    interval is Wilson's itself.

    The variance of a rate near 0 or 1 is unreliable, so each bound is the outermost over subsets of the values (for
    the upper bound, those of the clusters with the highest means). So the upper bound never falls when the count
    rises, and no interval has zero width.

    Args:
        values: [N] values in [0, 1].
        clusters: [N] cluster of each item, such as its prompt; by default every item is its own cluster.

    Raises:
        ValueError: if there are no values, or one is not in [0, 1].
    """
    array, codes = np.asarray(values, dtype=float), cluster_codes(clusters, len(values))
    n, count = len(array), _count(codes)
    if not n:
        raise ValueError("a rate needs at least one value")
    outside = ~((array >= -_ROUNDING) & (array <= 1 + _ROUNDING))
    if outside.any():
        raise ValueError(f"a rate needs values in [0, 1], not {array[outside][0]:g}")
    array = np.clip(array, 0.0, 1.0)
    binary = bool(np.isin(array, (0.0, 1.0)).all())
    rate = float(array.mean())
    if binary and count == n:
        return wilson(float(array.sum()), n)
    if count < 2:
        return Estimate(rate, 0.0, 1.0, n)
    high = _upper_bound(array, codes, binary)
    low = 1 - _upper_bound(1 - array, codes, binary)
    return Estimate(rate, max(0.0, min(low, rate)), min(1.0, max(high, rate)), n)


def _upper_bound(values: np.ndarray, codes: np.ndarray, binary: bool) -> float:
    """The largest upper bound over prefixes of the values, ordered by descending cluster mean."""
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
    ratio = _NORMAL / t_quantile(UPPER, count - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = np.where(variance > 0, rates * (1 - rates) / variance, _LARGE)
    worth = np.maximum(np.minimum(worth, n if binary else _LARGE) * ratio**2, alike)
    worth = np.where((rates <= 0) | (rates >= 1), alike, worth)
    center, half = _wilson(np.concatenate([[0.0], rates]), np.concatenate([[alike], worth]))
    return float((center + half).max())


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """A mean of unbounded values with a cluster-robust Student's t interval; see `rate_interval` for the arguments.

    Raises:
        ValueError: if there are fewer than two clusters.
    """
    array, codes = np.asarray(values, dtype=float), cluster_codes(clusters, len(values))
    if _count(codes) < 2:
        raise ValueError(f"an interval of a mean needs at least 2 independent values, not {_count(codes)}")
    half = t_quantile(UPPER, _count(codes) - 1) * standard_error(array, codes)
    mean = float(array.mean())
    return Estimate(mean, mean - half, mean + half, len(array))


def weighted_mean(estimates: Sequence[Estimate], weights: Sequence[float] | None = None) -> Estimate:
    """A weighted mean of independent estimates, equally weighted by default.

    The squared distances from each estimate to its bounds add up (Zou and Donner, Statistics in Medicine 27, 2008,
    p. 1693), so the interval stays within the range of the estimates and has zero width only if all of theirs have.
    """
    share = np.asarray(weights if weights is not None else [1.0] * len(estimates), dtype=float)
    share = share / share.sum()
    value, low, high = (np.array([getattr(e, name) for e in estimates]) for name in ("value", "low", "high"))
    mean = float(share @ value)
    down, up = (float(np.linalg.norm(share * side)) for side in (value - low, high - value))
    return Estimate(mean, mean - down, mean + up, sum(estimate.n for estimate in estimates))


def standard_error(values: np.ndarray, codes: np.ndarray) -> float:
    """Standard error of a mean of clustered values.

    The sandwich estimator with the finite-cluster correction C/(C - 1); s/sqrt(n) if every value is its own cluster.
    Miller, arXiv 2411.00640, appendix A, omits the correction; inspect_ai's ``stderr(cluster=...)`` includes it.

    Args:
        values: [N] values.
        codes: [N] cluster indices, from 0 without gaps; at least two clusters.
    """
    sums = np.bincount(codes, weights=values - values.mean())
    return math.sqrt(float((sums**2).sum()) * len(sums) / (len(sums) - 1)) / len(values)


def effective_clusters(codes: np.ndarray) -> float:
    """Effective number of independent items if the items of each cluster are identical."""
    sizes = np.bincount(codes)
    return float(sizes.sum()) ** 2 / float((sizes.astype(float) ** 2).sum())


def cluster_codes(clusters: Sequence[Hashable] | None, n: int) -> np.ndarray:
    """[N] cluster indices in order of first occurrence; without clusters, one per item."""
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


def _wilson(rate: Any, n: Any) -> tuple[Any, Any]:
    """Center and half-width of Wilson's interval, for numbers or arrays."""
    share = _NORMAL**2 / n
    half = _NORMAL / (1 + share) * np.sqrt(rate * (1 - rate) / n + share / (4 * n))
    return (rate + share / 2) / (1 + share), half
