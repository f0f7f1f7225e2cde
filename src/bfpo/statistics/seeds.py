"""Variance from items and variance from training seeds, for models trained with several seeds."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from bfpo.statistics.comparing import are_shares, at_least_some, detectable_effect, reach, t_difference
from bfpo.statistics.intervals import Estimate, cluster_codes


@dataclass(frozen=True)
class SeedVariance:
    """Contribution of the training seeds to the variance of a mean.

    Attributes:
        value: the contribution, >= 0; 0 with a single seed.
        degrees: degrees of freedom of the seeds, S - 1.
        raw: mean square of the seeds over S I, the scale of the uncertainty of ``value``.
    """

    value: float
    degrees: int
    raw: float


def seed_variance(values: np.ndarray) -> SeedVariance:
    """The seeds' contribution to the mean of [S, I] values by two-way random-effects ANOVA, with at least two items.

    The model is y[s, i] = mean + seed[s] + item[i] + rest[s, i] (Searle, Variance Components, ch. 4). A negative
    estimate is set to 0.
    """
    seeds, items = values.shape
    if seeds == 1:
        return SeedVariance(0.0, 0, 0.0)
    by_item, by_seed = values.mean(axis=0), values.mean(axis=1)
    rest = float(((values - by_item - by_seed[:, None] + values.mean()) ** 2).sum()) / ((seeds - 1) * (items - 1))
    square = items * float(by_seed.var(ddof=1))
    return SeedVariance(max(0.0, (square - rest) / items) / seeds, seeds - 1, square / (seeds * items))


@dataclass(frozen=True)
class SeedComparison:
    """A difference over items and training seeds.

    Attributes:
        difference: difference of the means, with its 95 % interval over new items and new seeds.
        p: two-sided p-value for no difference.
        detectable: difference that such a comparison finds with 80 % power; None if there are too few items.
        item_error: standard error from the items (and sampling) alone.
        seed_error: standard error from the training seeds alone.
    """

    difference: Estimate
    p: float
    detectable: float | None
    item_error: float
    seed_error: float


def compare_seeds(first: np.ndarray, second: np.ndarray, clusters: Sequence[Hashable] | None = None) -> SeedComparison:
    """Compare two training methods on the same items, from [S, N] and [S', N] values.

    Items are paired, seeds are not: variance = variance over I clusters of the difference of means over seeds / I
    + first's seed variance / S + second's seed variance / S'. Degrees of freedom by Satterthwaite's rule.

    Args:
        first: [S, N] values, a row for each seed.
        second: [S', N] values of the same items.
        clusters: [N] cluster of each item; by default every item is its own cluster. Items count the same, whatever
            the size of their clusters.

    Raises:
        ValueError: if there are fewer than two clusters.
    """
    bounded, largest, count = are_shares(first, second), reach(first, second), first.shape[1]
    codes = cluster_codes(clusters, count)
    if len(np.unique(codes)) < 2:
        raise ValueError(f"a comparison over seeds needs at least 2 independent items, not {len(np.unique(codes))}")
    first, second = (cluster_contributions(values, codes) for values in (first, second))
    differences = first.mean(axis=0) - second.mean(axis=0)
    seeds = [seed_variance(first), seed_variance(second)]
    item = float(differences.var(ddof=1)) / len(differences)
    seed = sum(each.value for each in seeds)
    error = at_least_some(math.sqrt(item + seed), len(differences), largest)
    spread = item**2 / (len(differences) - 1) + sum(each.raw**2 / each.degrees for each in seeds if each.value)
    degrees = max(1, int((item + seed) ** 2 / spread)) if spread else len(differences) - 1
    value = float(first.mean()) - float(second.mean())
    difference, p = t_difference(value, error, degrees, count, bounded=bounded)
    detectable = detectable_effect(error, 1.0 if bounded else math.inf)
    return SeedComparison(difference, p, detectable, item_error=math.sqrt(item), seed_error=math.sqrt(seed))


def cluster_contributions(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """[S, C] contributions of clusters to the means of [S, N] values, whose mean over clusters is that of the items.

    A cluster's is the mean over all items, plus its items' distances from it times C/N (its own mean if all clusters
    have the same size). Their variance over clusters is C times the square of `standard_error`.
    """
    means = values.mean(axis=1, keepdims=True)
    sums = np.array([np.bincount(codes, weights=row) for row in values - means])
    return means + sums * (sums.shape[1] / values.shape[1])
