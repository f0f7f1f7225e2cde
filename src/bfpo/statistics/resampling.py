"""The cluster bootstrap of any function of means: bias scores, calibration errors, their differences."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from bfpo.statistics.intervals import CONFIDENCE, Estimate, cluster_codes, wilson

REPLICATES = 10_000
# Of a chunk of replicates, so that memory stays small: 64 MB.
_DRAWS_AT_ONCE = 8_000_000


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


def bootstrap_interval(
    parts: np.ndarray,
    clusters: Sequence[Hashable] | None,
    combine: Callable[[np.ndarray], np.ndarray],
    *,
    bounds: tuple[float, float],
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Estimate:
    """A figure that is a function of means, with the percentile interval of the cluster bootstrap.

    Where no replicate differs, as many clusters as Wilson's interval of 0 of C leaves open may move the figure, each by
    its whole range.

    Args:
        parts: [N, M] what each item contributes to each of M means.
        clusters: what each item shares with others; None where every item is its own.
        combine: from [R, M] means to [R] figures.
        bounds: the figure's range.
        seed: of the draws.
        replicates: R.
    """
    value = float(combine(parts.mean(axis=0, keepdims=True))[0])
    low, high = percentiles(combine(bootstrap_means(parts, clusters, seed, replicates)))
    if low == high:
        reach = (bounds[1] - bounds[0]) * wilson(0, int(cluster_codes(clusters, len(parts)).max()) + 1).high
        low, high = max(bounds[0], value - reach), min(bounds[1], value + reach)
    return Estimate(value, min(low, value), max(high, value), len(parts))


def percentiles(drawn: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The percentile interval of replicates."""
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
