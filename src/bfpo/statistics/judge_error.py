"""Error rates of a judge, and rates corrected for them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from bfpo.statistics.agreement import UNPARSED
from bfpo.statistics.intervals import (
    UPPER,
    Estimate,
    cluster_codes,
    rate_interval,
    standard_error,
    t_quantile,
    wilson,
)


@dataclass(frozen=True)
class ErrorRates:
    """Sensitivity and specificity of a judge.

    Attributes:
        sensitivity: share of unsafe answers that it labels unsafe or controversial.
        specificity: share of safe answers that it labels safe.
    """

    sensitivity: Estimate
    specificity: Estimate

    @property
    def total(self) -> float:
        """Sensitivity plus specificity: 1 for a coin, 2 for a perfect judge."""
        return self.sensitivity.value + self.specificity.value

    @property
    def beats_chance(self) -> bool:
        """Whether the judge is better than chance, wherever one of the rates lies in its interval."""
        found, passed = self.sensitivity, self.specificity
        return min(found.low + passed.value, found.value + passed.low) > 1

    @classmethod
    def from_counts(cls, unsafe_found: int, unsafe: int, safe_found: int, safe: int) -> ErrorRates:
        """The rates of a judge that found ``unsafe_found`` of ``unsafe`` and ``safe_found`` of ``safe`` answers."""
        return cls(wilson(unsafe_found, unsafe), wilson(safe_found, safe))


def judge_error(
    is_safe: Sequence[float], labels: Sequence[str], clusters: Sequence[Hashable] | None = None
) -> ErrorRates | None:
    """A judge's error on answers with known labels; None unless it labeled answers of both kinds.

    Where a label is a probability, sensitivity and specificity are the ends of the least-squares line of the judge's
    words on the labels (as in `bfpo.statistics.flag_channel`); with labels of 0 and 1 these are the shares themselves.
    A judge that was trained on these labels looks better than it is.

    Args:
        is_safe: [N] known labels in [0, 1]; undecided ones (1/2) say nothing about a judge and are left out.
        labels: [N] the judge's labels of the same answers; "unparsed" ones are left out.
        clusters: [N] cluster of each answer, usually its prompt; by default every answer is its own cluster.
    """
    clusters = range(len(labels)) if clusters is None else clusters
    given = zip(is_safe, labels, clusters, strict=True)
    rows = [(safe, label, cluster) for safe, label, cluster in given if label != UNPARSED and safe != 0.5]
    truth = np.array([row[0] for row in rows], dtype=float)
    if len(truth) == 0 or truth.min() == truth.max():
        return None
    found: list[Estimate] = []
    for kind, end in (("unsafe", 0), ("safe", 1)):
        hits = np.array([float((label == "safe") == (kind == "safe")) for _, label, _ in rows])
        if np.isin(truth, (0, 1)).all():
            own = np.flatnonzero(truth == end)
            found.append(rate_interval(hits[own].tolist(), [rows[at][2] for at in own]))
        else:
            found.append(_end_of_line(hits, truth, end, cluster_codes([row[2] for row in rows], len(rows))))
    return ErrorRates(found[0], found[1])


def _end_of_line(hits: np.ndarray, truth: np.ndarray, end: int, codes: np.ndarray) -> Estimate:
    """The mean of [N] hits at a truth of 0 or 1, on the line through soft labels, with a cluster-robust interval.

    It is at least Wilson's for the number of clusters on that side, so that 0 of a few doesn't read as certainly 0.
    """
    away = truth - truth.mean()
    weights = 1 + (end - truth.mean()) * away / (away**2).mean()
    rate = float((weights * hits).mean())
    slope = float((away * hits).mean() / (away**2).mean())
    value, clusters = min(1.0, max(0.0, rate)), int(codes.max()) + 1
    if clusters < 2:
        return Estimate(value, 0.0, 1.0, len(hits))
    residuals = hits - hits.mean() - slope * away
    half = t_quantile(UPPER, clusters - 1) * standard_error(weights * residuals, codes)
    items = len(np.unique(codes[weights > 0]))
    least = wilson(value * items, items)
    return Estimate(value, max(0.0, min(least.low, rate - half)), min(1.0, max(least.high, rate + half)), len(hits))


def corrected_rate(observed: Estimate, error: ErrorRates, judged: float = 1.0) -> Estimate | None:
    """The true rate of unsafe answers, estimated from the rate that a judge labels unsafe (Rogan and Gladen, 1978).

    true = (observed - judged (1 - specificity))/(sensitivity + specificity - 1), clipped to [0, 1] (American Journal of
    Epidemiology 107, p. 71), where ``judged`` is the share of items that the judge judged; the others are known not to
    be unsafe, so it can't have been wrong about them. For the interval, each of the three rates moves to the ends of
    its own interval, and the squared changes add up (Zou and Donner, Statistics in Medicine 27, 2008, p. 1693).

    Returns:
        None if the judge is no better than chance.
    """
    found, passed = error.sensitivity, error.specificity
    if found.value + passed.value <= 1:
        return None

    def rate(seen: float, sensitivity: float, specificity: float) -> float:
        return (seen - judged * (1 - specificity)) / (sensitivity + specificity - 1)

    point = rate(observed.value, found.value, passed.value)
    value = min(1.0, max(0.0, point))
    if not error.beats_chance:  # the rate is undetermined
        return Estimate(value, 0.0, 1.0, observed.n)
    changes = [
        [rate(end, found.value, passed.value) - point for end in (observed.low, observed.high)],
        [rate(observed.value, end, passed.value) - point for end in (found.low, found.high)],
        [rate(observed.value, found.value, end) - point for end in (passed.low, passed.high)],
    ]
    down, up = (math.hypot(*(extreme(*ends, 0.0) for ends in changes)) for extreme in (min, max))
    return Estimate(value, max(0.0, value - down), min(1.0, value + up), observed.n)
