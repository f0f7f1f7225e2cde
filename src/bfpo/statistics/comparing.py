"""Comparisons: tests paired on the item, families of tests, and what a comparison could have seen."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from bfpo.statistics.intervals import (
    Estimate,
    cluster_codes,
    paired_difference,
    standard_error,
    t_distribution,
    wilson,
)

POWER = 0.8
SIGNIFICANCE = 0.05
# Of how many standard errors an effect must be, to be found with that power.
DETECTABLE_ERRORS = NormalDist().inv_cdf(1 - SIGNIFICANCE / 2) + NormalDist().inv_cdf(POWER)


@dataclass(frozen=True)
class PairedComparison:
    """Two measurements of the same items.

    Attributes:
        difference: mean of first less second, with its 95 % interval.
        p: two-sided, of no difference: McNemar's exact test where every value is 0 or 1 and no cluster has two
            items, Student's t otherwise.
        correlation: of the two over items; None where one of them doesn't vary.
        discordant: how many items only the first and only the second has, where every value is 0 or 1.
        detectable: the difference that such a comparison finds in 80 % of the cases.
    """

    difference: Estimate
    p: float
    correlation: float | None
    discordant: tuple[int, int] | None
    detectable: float


def compare_pairs(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> PairedComparison:
    """Compare two measurements of the same items.

    Args:
        first: one value for each item.
        second: the other's values of the same items.
        clusters: what each item shares with others; by default every item is its own.

    Where no item differs, the interval is what the share of items that do may still be: Wilson's of 0 of C.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    codes = cluster_codes(clusters, len(a))
    difference = paired_difference(a.tolist(), b.tolist(), clusters)
    error = standard_error(a - b, codes)
    detectable = DETECTABLE_ERRORS * error
    if error == 0 and difference.value == 0:
        detectable = wilson(0, int(codes.max()) + 1).high
        difference = Estimate(0.0, -detectable, detectable, len(a))
    binary = bool(np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all())
    discordant = (int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())) if binary else None
    alone = int(codes.max()) + 1 == len(a)
    p = mcnemar(*discordant) if discordant and alone else t_test(difference.value, error, int(codes.max()))
    varies = a.std() > 0 and b.std() > 0
    return PairedComparison(
        difference=difference,
        p=p,
        correlation=float(np.corrcoef(a, b)[0, 1]) if varies else None,
        discordant=discordant,
        detectable=detectable,
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of the exact McNemar test: the discordant items are fair coins.

    Args:
        only_first: items that only the first has.
        only_second: items that only the second has.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)


def t_test(value: float, error: float, degrees: int) -> float:
    """Two-sided p of a value that should be 0, given its standard error and degrees of freedom."""
    if error == 0:
        return 1.0 if value == 0 else 0.0
    return max(0.0, min(1.0, 2 * (1 - t_distribution(abs(value / error), degrees))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that bound the chance of any false discovery (Holm, Scand. J. Statist. 6, 1979, p. 65)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    return adjusted.tolist()


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that bound the share of false discoveries (J. R. Statist. Soc. B 57, 1995, p. 289)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(-p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(len(p) / np.arange(len(p), 0, -1) * p[order]))
    return adjusted.tolist()


def minimum_detectable_effect(n: int, rate: float = 0.5, correlation: float = 0.5) -> float:
    """The true difference that a paired comparison of n items finds in 80 % of the cases, at p < .05.

    Args:
        n: independent items that both models answer.
        rate: of both; 1/2 makes the effect the largest, for a score in [0, 1] of any distribution.
        correlation: of the two models' scores over items.
    """
    return DETECTABLE_ERRORS * math.sqrt(2 * rate * (1 - rate) * (1 - correlation) / n)
