"""Comparisons of two models: tests paired by item, multiple testing, and minimum detectable effects."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, ndtri, stdtr

from bfpo.statistics.intervals import CONFIDENCE, UPPER, Estimate, cluster_codes, standard_error, t_quantile, wilson

POWER = 0.8
SIGNIFICANCE = 1 - CONFIDENCE
# Size in standard errors of an effect that is found with that power.
_DETECTABLE_ERRORS = float(ndtri(UPPER) + ndtri(POWER))


@dataclass(frozen=True)
class PairedComparison:
    """Two measurements of the same items.

    Attributes:
        difference: mean of first minus second, with its 95 % interval, which excludes 0 exactly if p < .05.
        p: two-sided p-value for no difference: McNemar's exact test if every value is 0 or 1 and no cluster has two
            items, Student's t otherwise.
        correlation: correlation over items; None if one measurement doesn't vary.
        discordant: numbers of items that are 1 only in the first and only in the second; None unless all are 0 or 1.
        detectable: difference that such a comparison finds with 80 % power; None if there are too few items.
    """

    difference: Estimate
    p: float
    correlation: float | None
    discordant: tuple[int, int] | None
    detectable: float | None


def compare_pairs(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> PairedComparison:
    """Compare two measurements of the same items.

    Args:
        first: [N] values.
        second: [N] values of the same items.
        clusters: [N] cluster of each item; by default every item is its own cluster.

    Raises:
        ValueError: if there are fewer than two clusters.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    codes = cluster_codes(clusters, len(a))
    count = int(codes.max()) + 1
    if count < 2:
        raise ValueError(f"a paired comparison needs at least 2 independent items, not {count}")
    binary = bool(np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all())
    discordant = (int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())) if binary else None
    error, bounded = at_least_some(standard_error(a - b, codes), count, reach(a, b)), are_shares(a, b)
    if discordant and count == len(a):
        difference, p = mcnemar_interval(*discordant, len(a)), mcnemar(*discordant)
    else:
        difference, p = t_difference(float((a - b).mean()), error, count - 1, len(a), bounded=bounded)
    varies = a.std() > 0 and b.std() > 0
    return PairedComparison(
        difference=difference,
        p=p,
        correlation=float(np.corrcoef(a, b)[0, 1]) if varies else None,
        discordant=discordant,
        detectable=detectable_effect(error, 1.0 if bounded else math.inf),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of the exact McNemar test, from the numbers of discordant items of each kind."""
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


def mcnemar_interval(only_first: int, only_second: int, n: int) -> Estimate:
    """The difference of two paired rates over n items, with a score interval that agrees with the exact McNemar test.

    Tango's interval (Statistics in Medicine 17, 1998, p. 891) contains the differences whose score statistic is within
    the normal quantile. At no difference, that statistic is McNemar's, |b - c|/sqrt(b + c), for which the exact test
    is somewhat stricter. The quantile is raised to halfway between the largest |b - c| that the exact test accepts and
    the smallest that it rejects, so the interval excludes 0 exactly if `mcnemar` is below .05.
    """
    from scipy.optimize import root_scalar

    discordant = only_first + only_second
    quantile = float(ndtri(UPPER))
    if discordant:
        fewer = np.arange(discordant // 2 + 1)
        rejected = int((2 * bdtr(fewer, discordant, 0.5) < SIGNIFICANCE).sum())
        quantile = max(quantile, (discordant - 2 * rejected + 1) / math.sqrt(discordant))
    value = (only_first - only_second) / n

    def excess(difference: float) -> float:
        # Maximum-likelihood share of items that only the second has, given the difference of the rates.
        linear = 2 * n * difference - discordant - (only_first - only_second) * difference
        constant = 8 * n * only_second * difference * (1 - difference)
        share = max(0.0, (math.sqrt(max(0.0, linear**2 + constant)) - linear) / (4 * n))
        variance = n * max(0.0, 2 * share + difference * (1 - difference))
        return (only_first - only_second - n * difference) ** 2 - quantile**2 * variance

    # At the observed difference the statistic is 0/0 if no item, or every item, is discordant in the same direction.
    low = -1.0 if excess(-1.0) <= 0 else root_scalar(excess, bracket=(-1.0, value - 1e-9)).root
    high = 1.0 if excess(1.0) <= 0 else root_scalar(excess, bracket=(value + 1e-9, 1.0)).root
    return Estimate(value, min(float(low), value), max(float(high), value), n)


def t_difference(value: float, error: float, degrees: int, n: int, *, bounded: bool) -> tuple[Estimate, float]:
    """A difference of n items with its t interval, and the p-value for no difference.

    A bounded interval is clipped to [-1, 1], the range of a difference of shares. An error of 0 means that all values
    are equal.
    """
    half = t_quantile(UPPER, degrees) * error
    low, high = (value - half, value + half) if not bounded else (max(-1.0, value - half), min(1.0, value + half))
    return Estimate(value, low, high, n), float(2 * stdtr(degrees, -abs(value) / error)) if error else 1.0


def at_least_some(error: float, count: int, largest: float = 1.0) -> float:
    """A standard error, or its replacement if a difference is the same in all C clusters.

    The replacement assumes that other clusters differ by the ``largest`` difference, as often as Wilson's upper bound
    for 0 of C allows.
    """
    return error if error > 1e-12 * largest else largest * math.sqrt(wilson(0, count).high / count)


def reach(*columns: np.ndarray) -> float:
    """The largest difference that two values may have: 1 for shares, and the range of unbounded values."""
    return 1.0 if are_shares(*columns) else max(map(np.max, columns)) - min(map(np.min, columns))


def are_shares(*columns: np.ndarray) -> bool:
    """Whether all values are in [0, 1]."""
    return all(bool(((column >= 0) & (column <= 1)).all()) for column in columns)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that control the familywise error rate (Holm, Scand. J. Statist. 6, 1979, p. 65)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    return adjusted.tolist()


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that control the false discovery rate (J. R. Statist. Soc. B 57, 1995, p. 289)."""
    from scipy.stats import false_discovery_control

    return false_discovery_control(p_values).tolist() if len(p_values) else []


def detectable_effect(error: float, largest: float) -> float | None:
    """The true difference that is found with 80 % power at p < .05, from the standard error of its estimate.

    None if it exceeds the ``largest`` difference that there can be, because there are too few items to find any.
    """
    effect = _DETECTABLE_ERRORS * error
    return effect if effect <= largest else None


def minimum_detectable_effect(n: float, rate: float = 0.5, correlation: float = 0.5) -> float | None:
    """The `detectable_effect` of a paired comparison of scores in [0, 1] on n independent items.

    ``n`` may be an effective number, see `effective_clusters`. ``rate`` is the mean score of both models; 1/2 is the
    worst case for any score in [0, 1]. ``correlation`` is that of their scores over items.
    """
    return detectable_effect(math.sqrt(2 * rate * (1 - rate) * (1 - correlation) / n), 1.0)
