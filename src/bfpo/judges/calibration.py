"""How probabilities are brought in line with what is observed, and how far off they are. Needs numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bfpo.errors import BfpoError

# Probabilities are kept this far from 0 and 1, where their logits end.
_EDGE = 1e-6
Numbers = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Scaling:
    """p = sigmoid(slope * logit + offset): Platt's scaling, and temperature scaling where the offset is 0.

    Attributes:
        slope: of the logit; 1 / temperature.
        offset: in nats.
    """

    slope: float = 1.0
    offset: float = 0.0

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of scaled logits."""
        return sigmoid(self.slope * np.asarray(logits, dtype=float) + self.offset)


def fit_scaling(logits: Numbers, labels: Sequence[bool] | np.ndarray, offset: bool = True) -> Scaling:
    """The scaling that is likeliest, by Newton's method (Platt 1999, with his smoothed targets; Guo et al. 2017).

    Smoothing keeps it finite where the labels are perfectly separated.

    Args:
        logits: [N] raw scores, the higher the likelier the label is true.
        labels: [N] what is so.
        offset: False for temperature scaling, which has none.

    Raises:
        BfpoError: if only one of the two labels occurs, or the scores order the labels the wrong way round.
    """
    x, y = np.asarray(logits, dtype=float), np.asarray(labels, dtype=bool)
    positives, negatives = int(y.sum()), int((~y).sum())
    if not (positives and negatives):
        raise BfpoError(f"calibration needs labels of both kinds, not {positives} true and {negatives} false ones")
    target = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.column_stack([x, np.ones_like(x)]) if offset else x[:, None]
    scale = max(float(np.abs(x).max()), _EDGE)
    weights = np.zeros(design.shape[1])
    loss = _cross_entropy(design @ weights, target)
    for _ in range(100):
        p = sigmoid(design @ weights)
        gradient = design.T @ (p - target)
        curvature = design.T @ (design * (p * (1 - p))[:, None]) + 1e-12 * scale**2 * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        share = 1.0
        while _cross_entropy(design @ (weights - share * step), target) > loss and share > 1e-8:
            share /= 2
        weights = weights - share * step
        previous, loss = loss, _cross_entropy(design @ weights, target)
        if previous - loss < 1e-12 * max(1.0, previous):
            break
    if weights[0] <= 0:
        raise BfpoError("the judge's scores order the labels the wrong way round: check what its labels mean")
    return Scaling(float(weights[0]), float(weights[1]) if offset else 0.0)


def logit(probabilities: Numbers) -> np.ndarray:
    """Log-odds in nats, of probabilities kept off 0 and 1."""
    p = np.clip(np.asarray(probabilities, dtype=float), _EDGE, 1 - _EDGE)
    return np.log(p / (1 - p))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, dtype=float)))


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram: mean probability, share of true labels, and how many answers."""

    predicted: float
    observed: float
    n: int


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> list[Bin]:
    """Bins of equal mass, by rising probability; fewer where there are fewer answers than bins.

    What has the same probability may lie in two bins; the order of equals is the order given.
    """
    order = np.argsort(probabilities, kind="stable")
    return [
        Bin(float(probabilities[part].mean()), float(labels[part].mean()), len(part))
        for part in np.array_split(order, bins)
        if len(part)
    ]


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Mean distance of predicted from observed over bins of equal mass (Naeini et al. 2015; Nguyen & O'Connor 2015)."""
    parts = reliability(probabilities, labels, bins)
    return sum(part.n * abs(part.predicted - part.observed) for part in parts) / sum(part.n for part in parts)


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Chance that a true one scores above a false one, ties counting half (Mann-Whitney); NaN if one kind is absent."""
    y = np.asarray(labels, dtype=bool)
    positives, negatives = int(y.sum()), int((~y).sum())
    if not (positives and negatives):
        return math.nan
    _, inverse, counts = np.unique(np.asarray(scores, dtype=float), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[inverse][y].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _cross_entropy(logits: np.ndarray, target: np.ndarray) -> float:
    return float((np.logaddexp(0.0, logits) - target * logits).sum())
