"""Variance from items and variance from training seeds, for models trained with several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bfpo.statistics.comparing import are_shares, at_least_some, t_difference
from bfpo.statistics.intervals import Estimate


@dataclass(frozen=True)
class Components:
    """Variance components of the model y[s, i] = mean + seed[s] + item[i] + rest[s, i].

    Attributes:
        mean: overall mean.
        item: variance of the items.
        seed: variance of the training seeds; None with a single seed.
        rest: variance of interaction and sampling; None with a single seed, where it is part of ``item``.
        seed_error: contribution of the seeds to the variance of the mean, >= 0.
        seed_degrees: degrees of freedom of the seeds, S - 1.
        raw_seed_error: mean square of the seeds over S I, the scale of the uncertainty of ``seed_error``.
    """

    mean: float
    item: float
    seed: float | None
    rest: float | None
    seed_error: float
    seed_degrees: int
    raw_seed_error: float


def components(values: np.ndarray) -> Components:
    """Variance components of [S, I] values by two-way random-effects ANOVA (Searle, Variance Components, ch. 4).

    I is at least 2. Negative estimates are set to 0.
    """
    values = np.asarray(values, dtype=float)
    seeds, items = values.shape
    by_item, by_seed, mean = values.mean(axis=0), values.mean(axis=1), float(values.mean())
    if seeds == 1:
        return Components(mean, float(values.var(ddof=1)), None, None, 0.0, 0, 0.0)
    rest_square = float(((values - by_item - by_seed[:, None] + mean) ** 2).sum()) / ((seeds - 1) * (items - 1))
    item_square, seed_square = seeds * float(by_item.var(ddof=1)), items * float(by_seed.var(ddof=1))
    seed = max(0.0, (seed_square - rest_square) / items)
    return Components(
        mean=mean,
        item=max(0.0, (item_square - rest_square) / seeds),
        seed=seed,
        rest=rest_square,
        seed_error=seed / seeds,
        seed_degrees=seeds - 1,
        raw_seed_error=seed_square / (seeds * items),
    )


@dataclass(frozen=True)
class SeedComparison:
    """A difference over items and training seeds.

    Attributes:
        difference: difference of the means, with its 95 % interval over new items and new seeds.
        p: two-sided p-value for no difference.
        error: standard error of the difference.
        item_error: standard error from the items (and sampling) alone.
        seed_error: standard error from the training seeds alone.
    """

    difference: Estimate
    p: float
    error: float
    item_error: float
    seed_error: float


def compare_seeds(first: np.ndarray, second: np.ndarray) -> SeedComparison:
    """Compare two training methods on the same items, from [S, I] and [S', I] values.

    Items are paired, seeds are not: variance = items' variance of the difference of means over seeds / I
    + first's seed variance / S + second's seed variance / S'. Degrees of freedom by Satterthwaite's rule.
    """
    of_first, of_second = components(first), components(second)
    differences = np.asarray(first, dtype=float).mean(axis=0) - np.asarray(second, dtype=float).mean(axis=0)
    item = float(differences.var(ddof=1)) / len(differences)
    seed = of_first.seed_error + of_second.seed_error
    error = at_least_some(math.sqrt(item + seed), len(differences))
    spread = item**2 / (len(differences) - 1) + sum(
        side.raw_seed_error**2 / side.seed_degrees for side in (of_first, of_second) if side.seed_error
    )
    degrees = max(1, int((item + seed) ** 2 / spread)) if spread else len(differences) - 1
    value = of_first.mean - of_second.mean
    difference, p = t_difference(value, error, degrees, len(differences), bounded=are_shares(first, second))
    return SeedComparison(
        difference=difference,
        p=p,
        error=error,
        item_error=math.sqrt(item),
        seed_error=math.sqrt(seed),
    )


def cluster_means(values: Sequence[float], codes: np.ndarray) -> np.ndarray:
    """[C] mean of each cluster."""
    return np.bincount(codes, weights=np.asarray(values, dtype=float)) / np.bincount(codes)
