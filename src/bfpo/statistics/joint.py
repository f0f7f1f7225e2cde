"""Two figures at once: the ellipse of their joint mean, and the chance that one model beats another in both."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from bfpo.statistics.intervals import CONFIDENCE, cluster_codes
from bfpo.statistics.resampling import REPLICATES


@dataclass(frozen=True)
class JointMean:
    """Two means and how they err together.

    Attributes:
        center: the two means.
        covariance: [2, 2] of the means, robust to clusters.
        clusters: independent items behind them.
    """

    center: tuple[float, float]
    covariance: tuple[tuple[float, float], tuple[float, float]]
    clusters: int

    def ellipse(self, points: int = 72, confidence: float = CONFIDENCE) -> np.ndarray:
        """[P, 2] outline of the region that holds the true means with that confidence (Hotelling's)."""
        degrees = self.clusters - 2
        # The quantile of F with 2 and d degrees has a closed form; with many it is chi-squared's, -2 log(1 - c).
        radius = (self.clusters - 1) * ((1 - confidence) ** (-2 / degrees) - 1)
        values, vectors = np.linalg.eigh(np.asarray(self.covariance))
        angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
        circle = np.stack([np.cos(angles), np.sin(angles)])
        axes = vectors * np.sqrt(np.maximum(values, 0) * radius)
        return np.asarray(self.center) + (axes @ circle).T


@dataclass(frozen=True)
class Measured:
    """One figure's items: a value and a cluster for each."""

    values: Sequence[float]
    clusters: Sequence[Hashable]


def joint_mean(first: Measured, second: Measured) -> JointMean:
    """The means of two figures, of which items may share clusters (a prompt and its harmless twin)."""
    influences = _influences(first, second)
    count = len(influences)
    covariance = influences.T @ influences * count / (count - 1)
    (a, b), (c, d) = covariance.tolist()
    return JointMean((float(np.mean(first.values)), float(np.mean(second.values))), ((a, b), (c, d)), count)


def probability_both_above(first: Measured, second: Measured, *, seed: int = 0, replicates: int = REPLICATES) -> float:
    """Chance that both means are above 0, by the cluster bootstrap; of paired differences, that one model dominates.

    Args:
        first: differences in one figure.
        second: differences in the other.
        seed: of the draws.
        replicates: how many.
    """
    codes = cluster_codes([*first.clusters, *second.clusters], len(first.values) + len(second.values))
    count = int(codes.max()) + 1
    columns = []
    for values, own in ((first.values, codes[: len(first.values)]), (second.values, codes[len(first.values) :])):
        columns.append(np.bincount(own, weights=np.asarray(values, dtype=float), minlength=count))
    generator = np.random.default_rng(seed)
    sums, above = np.stack(columns, axis=1), 0
    chunk = max(1, 4_000_000 // count)
    for start in range(0, replicates, chunk):
        rows = min(chunk, replicates - start)
        drawn = generator.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        above += int((weights @ sums > 0).all(axis=1).sum())
    return above / replicates


def _influences(first: Measured, second: Measured) -> np.ndarray:
    """[C, 2] what each cluster adds to the deviation of the two means."""
    codes = cluster_codes([*first.clusters, *second.clusters], len(first.values) + len(second.values))
    count = int(codes.max()) + 1
    columns = []
    for values, own in ((first.values, codes[: len(first.values)]), (second.values, codes[len(first.values) :])):
        deviations = np.asarray(values, dtype=float) - np.mean(values)
        columns.append(np.bincount(own, weights=deviations, minlength=count) / len(deviations))
    return np.stack(columns, axis=1)
