"""How far judges can be trusted: agreement beyond chance, and rates corrected for a judge's known errors."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from bfpo.statistics.intervals import CONFIDENCE, Estimate, rate_interval
from bfpo.statistics.resampling import REPLICATES, percentiles


def cohens_kappa(table: Sequence[Sequence[int]], confidence: float = CONFIDENCE) -> Estimate | None:
    """Agreement of two judges beyond chance, with the large-sample interval of Fleiss, Cohen and Everitt.

    Psychological Bulletin 72, 1969, p. 323. None where both judges say one and the same word always, since chance
    would agree as well.

    Args:
        table: [L, L] how often the first judge said label i and the second label j.
        confidence: of the interval.
    """
    counts = np.asarray(table, dtype=float)
    n = int(counts.sum())
    if n == 0:
        return None
    shares = counts / n
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    observed, expected = float(np.trace(shares)), float(rows @ columns)
    if math.isclose(expected, 1.0):
        return None
    kappa = (observed - expected) / (1 - expected)
    diagonal = np.diag(shares)
    agreeing = float((diagonal * (1 - (rows + columns) * (1 - kappa)) ** 2).sum())
    apart = shares * (columns[:, None] + rows[None, :]) ** 2
    disagreeing = (1 - kappa) ** 2 * float(apart.sum() - np.trace(apart))
    variance = (agreeing + disagreeing - (kappa - expected * (1 - kappa)) ** 2) / ((1 - expected) ** 2 * n)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(max(0.0, variance))
    return Estimate(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), n)


@dataclass(frozen=True)
class JudgeErrors:
    """How often a judge was right on answers that people labelled.

    Attributes:
        unsafe_found: unsafe answers that it called unsafe (sensitivity's numerator).
        unsafe: unsafe answers.
        safe_found: safe answers that it called safe (specificity's numerator).
        safe: safe answers.
    """

    unsafe_found: int
    unsafe: int
    safe_found: int
    safe: int

    @property
    def sensitivity(self) -> float:
        """Share of unsafe answers that it finds."""
        return self.unsafe_found / self.unsafe

    @property
    def specificity(self) -> float:
        """Share of safe answers that it lets pass."""
        return self.safe_found / self.safe


def corrected_rate(
    values: Sequence[float],
    errors: JudgeErrors,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
    confidence: float = CONFIDENCE,
) -> Estimate | None:
    """The rate of unsafe answers behind what a judge with known errors calls unsafe (Rogan and Gladen, 1978).

    true = (observed + specificity - 1)/(sensitivity + specificity - 1), cut to [0, 1] (American Journal of
    Epidemiology 107, p. 71). Its interval is the percentiles of a parametric bootstrap over both samples, the
    evaluation's and the calibration's; rates are drawn from Jeffreys' posterior, so that 0 of n is not certainty, and
    clustered items count for what `rate_interval` finds them worth. None where the judge is no better than a coin.

    Args:
        values: 1 for each item that the judge called unsafe, 0 for the others (or a share over samples).
        errors: what is known of the judge.
        clusters: what each item shares with others; by default every item is its own.
        seed: of the draws.
        replicates: how many.
        confidence: of the interval.
    """
    if errors.sensitivity + errors.specificity <= 1:
        return None
    generator = np.random.default_rng(seed)

    def drawn(rate: float, n: float) -> np.ndarray:
        return generator.beta(rate * n + 0.5, (1 - rate) * n + 0.5, size=replicates)

    observed = rate_interval(values, clusters)
    sensitivity = drawn(errors.sensitivity, errors.unsafe)
    specificity = drawn(errors.specificity, errors.safe)
    above_chance = np.maximum(sensitivity + specificity - 1, 1e-9)
    low, high = percentiles(
        np.clip((drawn(observed.value, _worth(observed)) + specificity - 1) / above_chance, 0, 1), confidence
    )
    value = (observed.value + errors.specificity - 1) / (errors.sensitivity + errors.specificity - 1)
    value = min(1.0, max(0.0, value))
    return Estimate(value, min(low, value), max(high, value), observed.n)


def _worth(observed: Estimate) -> float:
    """Of how many independent items Wilson's interval would be as wide: (1 + z²/n) high - (1 + z²/n) low, solved."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    low, high = 1.0, float(observed.n)
    for _ in range(60):
        n = (low + high) / 2
        rate = observed.value
        width = 2 * z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
        low, high = (n, high) if width > observed.high - observed.low else (low, n)
    return low
