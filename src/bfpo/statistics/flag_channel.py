"""Flags that err: what training on them amounts to, and flags and orders whose errors cancel on average.

A judge's flag q (a verdict, or a probability that an answer is safe) is a noisy channel of the true flag s. If its mean
depends on the truth alone, E[q | s] = a + c s, then BFPO's expected label under (alpha, beta) is the clean one under
(alpha_eff, beta_eff), because the label is affine in the flags (derived for this project; docs/concepts.md). Errors
that depend on the text break that premise, and nothing here fixes them except the doubly robust flag.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from bfpo.statistics.intervals import UPPER, Estimate, cluster_codes, standard_error, t_quantile, wilson

# Variances, and sums of weights per answer, below this are rounding error.
_NOTHING = 1e-12
# Relative rounding error of a rate or a squared correlation.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class FlagChannel:
    """The channel E[q | s] = a + c s from true flags s to flags q.

    Attributes:
        a: mean of q on unsafe answers.
        c: mean of q on safe answers minus that on unsafe ones; at most 0 for flags no better than chance.
        correlation: correlation of q and s, with its 95 % interval over clusters.
    """

    a: float
    c: float
    correlation: Estimate

    @property
    def information(self) -> Estimate:
        """Squared correlation of q and s: n flags are worth n times as many true ones in a regression on s."""
        r = self.correlation
        return Estimate(max(0.0, r.value) ** 2, max(0.0, r.low) ** 2, max(0.0, r.high) ** 2, r.n)

    def alpha_eff(self, alpha: float) -> float:
        """(alpha - a)/c, the alpha of training on true flags that training on q amounts to."""
        return (alpha - self.a) / self.c

    def beta_eff(self, beta: float) -> float:
        """beta/c, the beta of training on true flags that training on q amounts to."""
        return beta / self.c

    def unbiased(self, q: np.ndarray) -> np.ndarray:
        """[N] s~ = (q - m0)/(m1 - m0), of which E[s~ | s] = s (Natarajan et al., NeurIPS 2013, lemma 1).

        m0 = a and m1 = a + c are the means of q on unsafe and on safe answers. The flags may leave [0, 1].
        """
        return (q - self.a) / self.c


def flag_channel(
    q: np.ndarray,
    is_safe: np.ndarray,
    clusters: Sequence[Hashable] | None = None,
    weights: np.ndarray | None = None,
) -> FlagChannel | None:
    """Estimate the channel from answers that people labeled, by weighted least squares of q on s.

    With flags of 0 and 1 this is the mean of q on each kind. With people's probabilities it is the line through them.
    The interval of the correlation is cluster-robust, by the delta method on Fisher's z.

    Args:
        q: [N] flags that never saw people's labels of these answers (out of fold).
        is_safe: [N] people's labels, in [0, 1].
        clusters: [N] cluster of each answer, usually its prompt; by default every answer is its own cluster.
        weights: [N] weight of each answer, by default 1. See `rest_weights`, whose weights may be negative.

    Returns:
        None without labels of both kinds in two clusters, if the weights leave none of them, or if negative weights
        make a correlation beyond 1, which says that the sample is too small to tell. A class mean that they bring
        beyond the smallest or largest flag is that flag.
    """
    w = np.ones(len(q)) if weights is None else weights
    codes = cluster_codes(clusters, len(q))
    total = _total(w)
    if total is None or len(np.unique(codes)) < 2:
        return None
    mean_q, mean_s = float(w @ q) / total, float(w @ is_safe) / total
    away_q, away_s = q - mean_q, is_safe - mean_s
    spread_q, spread_s, product = (float(w @ values) / total for values in (away_q**2, away_s**2, away_q * away_s))
    if spread_s <= _NOTHING:
        return None
    c = product / spread_s
    if product**2 > (1 + _ROUNDING) * spread_q * spread_s + _NOTHING:
        return None
    unsafe, safe = _in_range((mean_q - c * mean_s, mean_q + c * (1 - mean_s)), q, is_safe)
    if c and safe == unsafe:
        return None
    if spread_q <= _NOTHING:
        correlation = Estimate(0.0, -1.0, 1.0, len(q))
    else:
        z_q, z_s = away_q / math.sqrt(spread_q), away_s / math.sqrt(spread_s)
        r = min(1.0, max(-1.0, product / math.sqrt(spread_q * spread_s)))
        influence = w * (z_q * z_s - r * (z_q**2 + z_s**2) / 2) * len(q) / total
        correlation = _correlation(r, standard_error(influence, codes), int(codes.max()) + 1, len(q))
    return FlagChannel(unsafe, safe - unsafe, correlation)


def _in_range(means: tuple[float, float], q: np.ndarray, is_safe: np.ndarray) -> tuple[float, float]:
    """The means of q on unsafe and on safe answers, brought into its range, which negative weights may leave.

    The line through people's probabilities stays as it is: it may leave that range because it is drawn beyond them.
    """
    if not np.isin(is_safe, (0, 1)).all():
        return means
    unsafe, safe = (min(float(q.max()), max(float(q.min()), mean)) for mean in means)
    return unsafe, safe


def _total(weights: np.ndarray) -> float | None:
    """The sum of weights; None if it isn't above 0 by more than rounding."""
    total = float(weights.sum())
    return total if total > _NOTHING * len(weights) else None


def _correlation(r: float, error: float, clusters: int, n: int) -> Estimate:
    """A correlation with its interval; at 1 and -1, with as much error as none in C clusters allows."""
    if 1 - abs(r) < _NOTHING:
        reach = 2 * wilson(0, clusters).high
        return Estimate(r, max(-1.0, r - reach), min(1.0, r + reach), n)
    half = t_quantile(UPPER, clusters - 1) * error / (1 - r**2)
    return Estimate(r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half), n)


def rest_weights(is_random: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """[N] weights with which labeled answers stand for the unlabeled ones, whatever chose the others to be labeled.

    The random part stands for all N answers, by N over its number each; answers with known labels are then taken away.
    The weighted sum of any value over the labeled answers has the sum over the unlabeled ones as its expectation
    (Horvitz and Thompson, JASA 47, 1952), so that a queue of hard answers doesn't bias what is said of the rest.

    Args:
        is_random: [N] whether the answer was drawn at random for labeling, and labeled.
        is_known: [N] whether it has a label, at random or not.
    """
    return np.where(is_random, len(is_random) / max(1, int(is_random.sum())), 0.0) - is_known


def weighted_rate(
    values: np.ndarray, weights: np.ndarray, clusters: Sequence[Hashable] | None = None
) -> Estimate | None:
    """A share among the unlabeled answers, from the labeled ones with `rest_weights`.

    The interval is cluster-robust by Student's t, and at least Wilson's for the number of clusters in the random part
    (those with a positive weight), so that 0 of a few doesn't read as certainly 0. An estimate outside [0, 1], which
    negative weights may give, is the nearer end; the interval is that of the estimate as it was.

    Args:
        values: [N] values in [0, 1], or values whose mean is.
        weights: [N] weight of each, which may be negative.
        clusters: [N] cluster of each; by default every value is its own cluster.

    Returns:
        None with fewer than two clusters, or if the weights leave no answer.
    """
    codes, total = cluster_codes(clusters, len(values)), _total(weights)
    if total is None or len(np.unique(codes)) < 2:
        return None
    rate = float(weights @ values) / total
    items = len(np.unique(codes[weights > 0]))
    error = standard_error(weights * (values - rate) * len(values) / total, codes)
    half, value = t_quantile(UPPER, int(codes.max())) * error, min(1.0, max(0.0, rate))
    least = wilson(value * items, items)
    return Estimate(value, max(0.0, min(least.low, rate - half)), min(1.0, max(least.high, rate + half)), len(values))


def doubly_robust(q: np.ndarray, is_safe: np.ndarray, is_random: np.ndarray) -> np.ndarray:
    """[N] s^ = q + 1[labeled](s - q)/pi, whose mean is s for every text, however q errs.

    pi is the share of the answers that people labeled, drawn at random (augmented inverse-probability weighting:
    Robins, Rotnitzky and Zhao, JASA 89, 1994). Exact only if q never saw the labels; a q that was fitted to them has
    errors near 0 there and corrects nothing.

    Args:
        q: [N] flags, out of fold on labeled answers.
        is_safe: [N] people's labels; only read where ``is_random``.
        is_random: [N] whether people labeled the answer as part of the random sample.
    """
    return q + np.where(is_random, (is_safe - q) / is_random.mean(), 0.0)


def order_error(
    verdicts: np.ndarray,
    orders: np.ndarray,
    weights: np.ndarray | None = None,
    clusters: Sequence[Hashable] | None = None,
) -> Estimate | None:
    """The share e of true orders that a judge gets wrong, from pairs that people ordered.

    With people's order p, a probability, the judge's verdict v has E[p - v] = e (2p - 1). So e is the ratio of these
    two sums: pairs that people leave undecided (p = 1/2) say nothing.

    Args:
        verdicts: [P] the judge's orders: 1, 0, or 1/2 for a tie, which is half wrong.
        orders: [P] people's orders of the same pairs, in [0, 1].
        weights: [P] weight of each pair, by default 1; see `rest_weights`.
        clusters: [P] cluster of each pair, usually its prompt.

    Returns:
        None if too few pairs are decided, see `weighted_rate`.
    """
    leaning = 2 * orders - 1
    decided = np.flatnonzero(leaning)
    wrong = (orders - verdicts)[decided] / leaning[decided]
    worth = np.abs(leaning[decided]) * (1.0 if weights is None else weights[decided])
    return weighted_rate(wrong, worth, None if clusters is None else [clusters[at] for at in decided.tolist()])


def unbiased_order(order: np.ndarray, error: float) -> np.ndarray:
    """[P] p~ = (o - e)/(1 - 2e), whose mean is the true order if a share e < 1/2 of the orders o is wrong."""
    return (order - error) / (1 - 2 * error)
