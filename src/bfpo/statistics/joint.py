"""Joint inference on two figures: confidence ellipses, and the probability that one model beats another in both."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from bfpo.statistics.intervals import CONFIDENCE, cluster_codes
from bfpo.statistics.resampling import REPLICATES, cluster_weights


@dataclass(frozen=True)
class JointMean:
    """Two means with their covariance.

    Attributes:
        center: the two means.
        covariance: [2, 2] cluster-robust covariance of the means; a single cluster has infinite variances.
        clusters: number of independent clusters.
    """

    center: tuple[float, float]
    covariance: tuple[tuple[float, float], tuple[float, float]]
    clusters: int

    def ellipse(self, points: int = 72) -> np.ndarray:
        """[P, 2] outline of Hotelling's confidence region for the two means.

        Raises:
            ValueError: if there are fewer than three clusters.
        """
        degrees = self.clusters - 2
        if degrees < 1:
            raise ValueError(f"a joint confidence region needs at least 3 independent items, not {self.clusters}")
        # The F quantile with 2 and d degrees of freedom has a closed form, whose limit is chi-squared's, -2 log(1 - c).
        radius = (self.clusters - 1) * ((1 - CONFIDENCE) ** (-2 / degrees) - 1)
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
    """The joint mean of two figures, whose items may share clusters (a prompt and its harmless twin)."""
    # [C, 2] contribution of each cluster to the deviation of the two means.
    deviations = [np.asarray(own.values, dtype=float) - np.mean(own.values) for own in (first, second)]
    influences = _cluster_sums(first, second, deviations) / [len(first.values), len(second.values)]
    count, center = len(influences), (float(np.mean(first.values)), float(np.mean(second.values)))
    if count < 2:
        return JointMean(center, ((math.inf, 0.0), (0.0, math.inf)), count)
    (a, b), (c, d) = (influences.T @ influences * count / (count - 1)).tolist()
    return JointMean(center, ((a, b), (c, d)), count)


def probability_both_above(first: Measured, second: Measured, *, seed: int = 0, replicates: int = REPLICATES) -> float:
    """Bootstrap probability over clusters that both means are above 0; for paired differences, of dominance."""
    sums = _cluster_sums(first, second, [first.values, second.values])
    drawn = cluster_weights(len(sums), seed, replicates)
    return sum(int((weights @ sums > 0).all(axis=1).sum()) for weights in drawn) / replicates


def _cluster_sums(first: Measured, second: Measured, columns: Sequence[Sequence[float] | np.ndarray]) -> np.ndarray:
    """[C, 2] sums of two columns of values over the clusters of two figures."""
    codes = cluster_codes([*first.clusters, *second.clusters], len(first.values) + len(second.values))
    parts = np.split(codes, [len(first.values)])
    count = int(codes.max()) + 1
    return np.stack([np.bincount(own, values, count) for own, values in zip(parts, columns, strict=True)], axis=1)
