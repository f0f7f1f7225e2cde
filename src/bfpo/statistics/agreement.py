"""Agreement of two raters (two judges, or a judge and people) on the same answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bfpo.statistics.intervals import UPPER, Estimate, cluster_codes, rate_interval, standard_error, t_quantile

UNPARSED = "unparsed"


@dataclass(frozen=True)
class Agreement:
    """Agreement of two raters.

    Attributes:
        observed: share of answers on which the labels are equal, among those that both could rate.
        kappa: Cohen's kappa; None if both raters always give one and the same label.
        table: number of answers by the first and the second rater's label, including unparsed ones.
    """

    observed: Estimate
    kappa: Estimate | None
    table: Mapping[tuple[str, str], int]


def agreement(
    first: Sequence[str], second: Sequence[str], clusters: Sequence[Hashable] | None = None
) -> Agreement | None:
    """The agreement of two raters; None if there is no answer that both could rate.

    Args:
        first: [N] labels by the first rater, "unparsed" if it gave none.
        second: [N] labels by the second rater.
        clusters: [N] cluster of each answer, usually its prompt; by default every answer is its own cluster.
    """
    clusters = range(len(first)) if clusters is None else clusters
    rows = [row for row in zip(first, second, clusters, strict=True) if UNPARSED not in row[:2]]
    if not rows:
        return None
    a, b, shared = zip(*rows, strict=True)
    observed = rate_interval([float(x == y) for x, y in zip(a, b, strict=True)], shared)
    return Agreement(observed, cohens_kappa(a, b, shared), dict(Counter(zip(first, second, strict=True))))


def cohens_kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], clusters: Sequence[Hashable] | None = None
) -> Estimate | None:
    """Cohen's kappa with a cluster-robust interval by the delta method; see `agreement` for the arguments.

    With one answer per cluster, the variance is that of Fleiss, Cohen and Everitt (Psychological Bulletin 72, 1969,
    p. 323) times N/(N - 1), and the quantile is Student's. The bounds are at least as wide as those of raters who
    always (never) agree, so complete agreement doesn't count as certainty.

    Returns:
        None without answers, or if both raters give one and the same label to all of them.
    """
    words = {word: at for at, word in enumerate(dict.fromkeys([*first, *second]))}
    if len(words) < 2:
        return None
    a, b = (np.array([words[word] for word in rater]) for rater in (first, second))
    codes, n = cluster_codes(clusters, len(a)), len(a)
    shares = [np.bincount(rater, minlength=len(words)) / n for rater in (a, b)]
    agree, chance = (a == b).astype(float), float(shares[0] @ shares[1])
    disagreement = (1 - float(agree.mean())) / (1 - chance)
    kappa = 1 - disagreement
    count = int(codes.max()) + 1
    if count < 2:
        return Estimate(kappa, -1.0, 1.0, n)
    influence = (agree - disagreement * (shares[1][a] + shares[0][b])) / (1 - chance)
    half = t_quantile(UPPER, count - 1) * standard_error(influence, codes)
    always, never = (rate_interval([share] * n, clusters) for share in (1.0, 0.0))
    low = min(kappa - half, (always.low - chance) / (1 - chance))
    high = max(kappa + half, (never.high - chance) / (1 - chance))
    return Estimate(kappa, max(-1.0, low), min(1.0, high), n)
