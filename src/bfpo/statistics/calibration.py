"""Calibration of probabilities: calibration error, reliability, AUC, and Platt scaling."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from bfpo.errors import BfpoError
from bfpo.statistics.intervals import (
    CONFIDENCE,
    UPPER,
    Estimate,
    cluster_codes,
    effective_clusters,
    rate_interval,
    standard_error,
    t_quantile,
    wilson,
)

# Distance that probabilities keep from 0 and 1, so that their logits are finite.
_EDGE = 1e-6
# Number of simulated samples, and of their answers in memory at once.
_REPLICATES, _DRAWS_AT_ONCE = 1000, 2_000_000
Numbers = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Scaling:
    """p = sigmoid(slope * logit + offset): Platt scaling.

    Attributes:
        slope: factor of the logit.
        offset: offset in nats.
    """

    slope: float = 1.0
    offset: float = 0.0

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of scaled logits."""
        return expit(self.slope * np.asarray(logits, dtype=float) + self.offset)


def check_scaling(scaling: Scaling, where: str, *, informative: bool = True) -> None:
    """Refuse a scaling whose numbers aren't finite, or that reverses the order of the scores.

    If it must be informative, a slope of 0, a constant probability, is refused too.

    Raises:
        BfpoError: if it is refused; the message begins with ``where``.
    """
    slope, offset = scaling.slope, scaling.offset
    if not (math.isfinite(slope) and math.isfinite(offset)):
        raise BfpoError(f"{where}: the scaling {slope:g}, {offset:g} is not finite; fit it again")
    if slope < 0 or (informative and slope == 0):
        raise BfpoError(
            f"{where}: the slope {slope:g} of the scaling is not positive, so the judge would be no better than chance "
            "or worse; fit it again, or use another judge"
        )


def fit_scaling(logits: Numbers, labels: Sequence[bool] | np.ndarray) -> Scaling:
    """Maximum-likelihood scaling: a logistic regression on Platt's smoothed targets (Platt 1999).

    Smoothing keeps the scaling finite if the labels are perfectly separated.

    Args:
        logits: [N] raw scores; higher means more likely true.
        labels: [N] labels.

    Raises:
        BfpoError: if only one of the two labels occurs, or higher scores go with false labels.
    """
    x, y = np.asarray(logits, dtype=float), np.asarray(labels, dtype=bool)
    positives, negatives = int(y.sum()), int((~y).sum())
    if not (positives and negatives):
        raise BfpoError(f"calibration needs labels of both kinds, not {positives} true and {negatives} false ones")
    target = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    scale = max(float(np.abs(x).max()), _EDGE)
    slope, offset = fit_logistic((x / scale)[:, None], target, intercept=True)
    if slope[0] <= 0:
        raise BfpoError("the judge scores false labels above true ones: check what its labels mean")
    return Scaling(float(slope[0]) / scale, offset)


def fit_logistic(
    design: np.ndarray, target: np.ndarray, *, intercept: bool, ridge: float = 1e-12
) -> tuple[np.ndarray, float]:
    """Weights [M] and intercept of scikit-learn's logistic regression on targets that may be probabilities.

    Args:
        design: [N, M] features.
        target: [N] probabilities; p counts as a 1 with weight p and a 0 with weight 1 - p.
        intercept: whether to fit an intercept.
        ridge: penalty on half of the squared weights.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / ridge, fit_intercept=intercept, tol=1e-10, max_iter=1000)
    n = len(target)
    labels, shares = np.repeat([1, 0], n), np.concatenate([target, 1 - target])
    model.fit(np.concatenate([design, design]), labels, sample_weight=shares)
    return np.asarray(model.coef_)[0], float(np.atleast_1d(model.intercept_)[0])


def logit(probabilities: Numbers) -> np.ndarray:
    """Log-odds in nats of probabilities, which are clipped away from 0 and 1."""
    p = np.clip(np.asarray(probabilities, dtype=float), _EDGE, 1 - _EDGE)
    return np.log(p / (1 - p))


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram: the mean probability, and the share of true labels with its 95 % interval."""

    predicted: float
    observed: Estimate


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, clusters: Sequence[Hashable] | None = None, *, bins: int = 10
) -> list[Bin]:
    """Bins of about equal mass by rising probability, without empty ones; see `calibration_error` for the arguments."""
    bin_of, codes = _bins(probabilities, bins), cluster_codes(clusters, len(labels))
    parts = (bin_of == at for at in np.unique(bin_of))
    return [
        Bin(float(probabilities[part].mean()), rate_interval(labels[part].tolist(), codes[part].tolist()))
        for part in parts
    ]


@dataclass(frozen=True)
class CalibrationError:
    """A calibration error, with what chance alone makes of it.

    The estimate of a calibrated judge is above 0, too, and the more so the fewer answers there are.

    Attributes:
        value: the expected calibration error.
        by_chance: the error that a calibrated judge's estimate exceeds in 5 % of such samples. A larger ``value`` shows
            miscalibration.
        n: number of answers.
    """

    value: float
    by_chance: float
    n: int


def calibration_error(
    probabilities: np.ndarray,
    labels: np.ndarray,
    clusters: Sequence[Hashable] | None = None,
    *,
    bins: int = 10,
    seed: int = 0,
) -> CalibrationError:
    """Expected calibration error over bins of about equal mass (Naeini et al. 2015; Nguyen & O'Connor 2015).

    The error by chance is the larger one from two simulations. One draws independent labels with the probabilities,
    which is exact without clusters. The other gives the residuals of each cluster a common random sign.

    Args:
        probabilities: [N] predictions.
        labels: [N] labels.
        clusters: [N] cluster of each answer; by default every answer is its own cluster.
        bins: number of bins; equal probabilities share one.
        seed: random seed for the simulations.
    """
    n, codes = len(probabilities), cluster_codes(clusters, len(labels))
    within = np.eye(bins)[_bins(probabilities, bins)]  # [N, B]
    gaps = within * (probabilities - labels)[:, None]
    by_cluster = np.stack([np.bincount(codes, weights=column) for column in gaps.T], axis=1)
    generator, drawn = np.random.default_rng(seed), list[np.ndarray]()
    chunk = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, _REPLICATES, chunk):
        rows = min(chunk, _REPLICATES - start)
        by_labels = (probabilities - (generator.random((rows, n)) < probabilities)) @ within
        by_signs = generator.choice((-1.0, 1.0), (rows, len(by_cluster))) @ by_cluster
        drawn.append(np.abs([by_labels, by_signs]).sum(axis=2) / n)
    by_chance = np.quantile(np.concatenate(drawn, axis=1), CONFIDENCE, axis=1).max()
    return CalibrationError(float(np.abs(gaps.sum(axis=0)).sum()) / n, float(by_chance), n)


def _bins(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """[N] bin of each answer, by its rank; those with equal probabilities share the bin of their mean rank."""
    from scipy.stats import rankdata

    return ((rankdata(probabilities) - 0.5) * bins / len(probabilities)).astype(int)


def auc(scores: np.ndarray, labels: np.ndarray, clusters: Sequence[Hashable] | None = None) -> Estimate | None:
    """Chance that a true item scores above a false one, ties counting 1/2 (Mann-Whitney); None without both kinds.

    The variance is DeLong's with clusters (Obuchowski, Biometrics 53, 1997, p. 567). The interval is Wilson's for the
    effective number of items that this variance implies, and at least as wide as for complete separation of the rarer
    kind.

    Args:
        scores: [N] scores.
        labels: [N] labels.
        clusters: [N] cluster of each answer; by default every answer is its own cluster.
    """
    from scipy.stats import rankdata

    y, codes = np.asarray(labels, dtype=bool), cluster_codes(clusters, len(labels))
    positives, negatives = int(y.sum()), int((~y).sum())
    if not (positives and negatives):
        return None
    # Placements: share of the other kind that a positive item scores above, or a negative item below.
    ranks = rankdata(scores)
    placements = np.empty(len(y))
    placements[y] = (ranks[y] - rankdata(scores[y])) / negatives
    placements[~y] = 1 - (ranks[~y] - rankdata(scores[~y])) / positives
    value, count = float(placements[y].mean()), int(codes.max()) + 1
    if count < 2:
        return Estimate(value, 0.0, 1.0, len(y))
    influence = (placements - value) * np.where(y, len(y) / positives, len(y) / negatives)
    variance = standard_error(influence, codes) ** 2
    alike = min(effective_clusters(np.unique(codes[kind], return_inverse=True)[1]) for kind in (y, ~y))
    ratio = t_quantile(UPPER, count - 1) / t_quantile(UPPER, np.inf)
    worth = max(alike, value * (1 - value) / variance / ratio**2) if variance else alike
    found = wilson(value * worth, worth)
    low, high = min(found.low, wilson(alike, alike).low), max(found.high, wilson(0, alike).high)
    return Estimate(value, low, high, len(y))
