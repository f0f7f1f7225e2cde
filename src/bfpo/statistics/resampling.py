"""The cluster bootstrap, of any function of means: aggregates of several tasks, bias scores, differences."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from bfpo.statistics.intervals import CONFIDENCE, Estimate, cluster_codes

REPLICATES = 10_000
# Of a chunk of replicates, so that memory stays small: 64 MB.
_DRAWS_AT_ONCE = 8_000_000


@dataclass(frozen=True)
class Stratum:
    """Items that are resampled among themselves, as the prompts of one task are.

    Attributes:
        parts: [N, M] what each item contributes to each of M means.
        clusters: what each item shares with others; None where every item is its own.
        combine: from [R, M] means to [R] figures; the identity of one mean by default.
    """

    parts: np.ndarray
    clusters: Sequence[Hashable] | None = None
    combine: Callable[[np.ndarray], np.ndarray] = lambda means: means[:, 0]

    @property
    def value(self) -> float:
        """The figure of all items."""
        return float(self.combine(self.parts.mean(axis=0, keepdims=True))[0])


def bootstrap_means(
    parts: np.ndarray, clusters: Sequence[Hashable] | None, seed: int | np.random.SeedSequence, replicates: int
) -> np.ndarray:
    """[R, M] means over items, each replicate with as many clusters as there are, drawn with replacement.

    Args:
        parts: [N, M] values; columns are resampled together.
        clusters: what each item shares with others; None where every item is its own.
        seed: of the draws.
        replicates: R.
    """
    codes = cluster_codes(clusters, len(parts))
    sizes = np.bincount(codes)
    sums = np.stack([np.bincount(codes, weights=column) for column in np.asarray(parts, dtype=float).T], axis=1)
    count, generator = len(sizes), np.random.default_rng(seed)
    means = np.empty((replicates, sums.shape[1]))
    chunk = max(1, _DRAWS_AT_ONCE // count)
    for start in range(0, replicates, chunk):
        rows = min(chunk, replicates - start)
        drawn = generator.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(float)
        means[start : start + rows] = weights @ sums / (weights @ sizes)[:, None]
    return means


def aggregate(
    strata: Sequence[Stratum],
    weights: Sequence[float] | None = None,
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """A weighted mean of several figures, with the percentile interval of the mean itself.

    Args:
        strata: the items behind each figure; strata are resampled independently.
        weights: of the figures, equal by default.
        seed: of the draws.
        replicates: how many.
        confidence: of the interval.
    """
    share = np.asarray(weights if weights is not None else [1.0] * len(strata), dtype=float)
    share = share / share.sum()
    seeds = np.random.SeedSequence(seed).spawn(len(strata))
    drawn = np.zeros(replicates)
    for stratum, own, part in zip(strata, seeds, share, strict=True):
        drawn += part * stratum.combine(bootstrap_means(stratum.parts, stratum.clusters, own, replicates))
    value = sum(part * stratum.value for stratum, part in zip(strata, share, strict=True))
    low, high = percentiles(drawn, confidence)
    return Estimate(float(value), low, high, sum(len(stratum.parts) for stratum in strata))


def percentiles(drawn: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The percentile interval of replicates."""
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
