"""The cluster bootstrap for functions of means: bias scores and their differences."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

from bfpo.statistics.intervals import UPPER, Estimate, cluster_codes, wilson

REPLICATES = 10_000
# Number of clusters drawn at once, which limits memory to 64 MB.
_DRAWS_AT_ONCE = 8_000_000


def cluster_weights(count: int, seed: int | np.random.SeedSequence, replicates: int) -> Iterator[np.ndarray]:
    """Yield chunks [R', C] of the R replicates' weights: how often each of C clusters was drawn with replacement."""
    generator = np.random.default_rng(seed)
    chunk = max(1, _DRAWS_AT_ONCE // count)
    for start in range(0, replicates, chunk):
        rows = min(chunk, replicates - start)
        drawn = generator.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(float)


def bootstrap_means(
    parts: np.ndarray, clusters: Sequence[Hashable] | None, seed: int | np.random.SeedSequence, replicates: int
) -> np.ndarray:
    """[R, M] means of [N, M] values over items; columns are resampled together.

    For the arguments see `bootstrap_interval`.
    """
    codes = cluster_codes(clusters, len(parts))
    sizes = np.bincount(codes)
    sums = np.stack([np.bincount(codes, weights=column) for column in np.asarray(parts, dtype=float).T], axis=1)
    drawn = cluster_weights(len(sizes), seed, replicates)
    return np.concatenate([weights @ sums / (weights @ sizes)[:, None] for weights in drawn])


def bootstrap_interval(
    parts: np.ndarray,
    clusters: Sequence[Hashable] | None,
    combine: Callable[[np.ndarray], np.ndarray],
    *,
    bounds: tuple[float, float],
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Estimate:
    """A function of means with its percentile interval by the cluster bootstrap.

    If all replicates are equal, the interval allows for as many deviating clusters as Wilson's upper bound for 0 of C,
    each of which moves the figure by its whole range.

    Args:
        parts: [N, M] values of each item, one column per mean.
        clusters: [N] cluster of each item; None if every item is its own cluster.
        combine: function from [R, M] means to [R] figures.
        bounds: range of the figure.
        seed: random seed for the bootstrap.
        replicates: number of replicates, R.
    """
    value = float(combine(parts.mean(axis=0, keepdims=True))[0])
    low, high = percentiles(combine(bootstrap_means(parts, clusters, seed, replicates)))
    if low == high:
        reach = (bounds[1] - bounds[0]) * wilson(0, int(cluster_codes(clusters, len(parts)).max()) + 1).high
        low, high = max(bounds[0], value - reach), min(bounds[1], value + reach)
    return Estimate(value, min(low, value), max(high, value), len(parts))


def percentiles(drawn: np.ndarray) -> tuple[float, float]:
    """Percentile interval of bootstrap replicates."""
    low, high = np.quantile(drawn, [1 - UPPER, UPPER])
    return float(low), float(high)
