"""Fit of the labeling function to overall judgments: a logistic regression on the two safety flags."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import root_scalar
from scipy.special import chdtrc, chdtri
from torch import Tensor

from bfpo.errors import BfpoError
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.objectives.cell_likelihood import (
    CELLS,
    FLAGS,
    Array,
    ConstantsLikelihood,
    Likelihood,
    Shrunk,
    cell_posteriors,
    minimize,
)
from bfpo.statistics.intervals import UPPER, Estimate, t_quantile

MINIMUM_PAIRS = 30
# Below this number, or with a cell that has less than a tenth of it, most intervals for b1 are open or useless.
ENOUGH_PAIRS = 1000
# The prior on log b3: around the paper's b3 = 1/2, with b3 from .13 to 2 in 95 of 100 cases.
PRIOR_B3, PRIOR_SD = 0.5, 0.7
# Share of the largest weight below which another one is rounding error.
_NOTHING = 1e-9
_PAPER_DIRECTION = np.array([[1.5], [-0.5], [-0.5]])
# Distance in log b3 at which an end of the interval counts as infinite.
_FAR = math.log(1e4)
_CHI_SQUARE_95 = float(chdtri(1, 0.05))
# Expected pairs that every cell needs for the test of fit.
_PAIRS_TO_TEST = 5


@dataclass(frozen=True)
class PreferenceFit:
    """The fitted labeling function, with its uncertainty.

    Attributes:
        preference: the fitted labeling function.
        temperature: t in P(overall prefers the more helpful answer) = sigmoid(T/t).
        covariance: [3, 3] covariance of (b3, alpha, temperature) with b3 = 1/(b1 - 1), from the observed information
            by the delta method.
        b1_interval: 95 % profile interval; an end is 1 or infinity if nothing bounds it.
        likelihood_ratio: twice the log-likelihood's gain over b1 = 3, alpha = 1/2 at their own best temperature;
            chi-square with two degrees of freedom if the paper's values are true.
        lack_of_fit: twice the log-likelihood's gain of a free probability for each cell over the fit's three constants;
            chi-square with one degree of freedom if judgments follow T. None if a cell has fewer than 5 (expected)
            pairs.
        n_per_cell: (expected) number of pairs by the two flags (more, less helpful answer).
        is_bounded: whether the judgments alone, without the prior, bound b1 on both sides.
    """

    preference: GlobalPreference
    temperature: float
    covariance: Tensor
    b1_interval: tuple[float, float]
    likelihood_ratio: float
    lack_of_fit: float | None
    n_per_cell: dict[str, float]
    is_bounded: bool

    @property
    def p_value(self) -> float:
        """P-value of `likelihood_ratio` under the paper's values."""
        return math.exp(-self.likelihood_ratio / 2)

    @property
    def lack_of_fit_p(self) -> float | None:
        """P-value of `lack_of_fit` if judgments follow some T."""
        return None if self.lack_of_fit is None else float(chdtrc(1, self.lack_of_fit))

    @property
    def b3_interval(self) -> tuple[float, float]:
        """`b1_interval` in terms of b3 = 1/(b1 - 1)."""
        low, high = self.b1_interval
        return 1 / (high - 1), math.inf if low == 1 else 1 / (low - 1)

    @property
    def refusal_threshold(self) -> Estimate:
        """`GlobalPreference.refusal_threshold` with its interval, by the delta method."""
        b3, alpha = self.preference.b3, self.preference.alpha
        slopes = np.array([-(1 - alpha) / (1 + b3) ** 2, -1 / (1 + b3)])
        error = math.sqrt(float(slopes @ self.covariance[:2, :2].numpy() @ slopes))
        value, half = self.preference.refusal_threshold, t_quantile(UPPER, math.inf) * error
        return Estimate(value, value - half, value + half, round(sum(self.n_per_cell.values())))

    @property
    def warnings(self) -> list[str]:
        """Reasons not to trust the fit."""
        return list(_warnings(self))


def fit_preference(
    better_is_safe: Sequence[float] | Tensor,
    worse_is_safe: Sequence[float] | Tensor,
    overall_prefers_better: Sequence[float] | Tensor,
    *,
    order_error: float = 0.0,
    prior_sd: float = PRIOR_SD,
) -> PreferenceFit:
    """Fit logit = w1 s_w + w2 s_l + w0, so 1/temperature = w1 + w2, b3 = -w2/(w1 + w2), alpha = -w0/(w1 + w2).

    Flags that are probabilities enter through the probabilities of the four cells (see `cell_posteriors`), and the
    likelihood is a mean of four sigmoids. log b3 has a normal prior around the paper's log 1/2, because few judgments
    hardly determine it; alpha and the temperature have none.

    Args:
        better_is_safe: [N] flag or probability that the more helpful answer is safe. Probabilities must be calibrated
            over the answers given here: pairs that were drawn by what a judge says of them need people's flags.
        worse_is_safe: [N] the same for the less helpful answer.
        overall_prefers_better: [N] flag or probability that the more helpful answer was preferred overall.
        order_error: share of pairs in which the answer called more helpful is not, below 1/2.
        prior_sd: standard deviation of the prior on log b3; infinity for maximum likelihood.

    Raises:
        BfpoError: if shapes or values are wrong, pairs are too few, the flags don't identify the three constants,
            the flags separate the judgments perfectly (no temperature), or safety has no positive weight (b3 <= 0).
    """
    columns = checked_columns(better_is_safe, worse_is_safe, overall_prefers_better)
    if not 0 <= order_error < 0.5:
        raise BfpoError(f"the order error is {order_error}: write the share of wrong orders, from 0 to less than 0.5")
    if not prior_sd > 0:
        raise BfpoError(f"the prior's standard deviation is {prior_sd}: write a positive number, or inf for no prior")
    cells = cell_posteriors(columns[0], columns[1])
    n_per_cell: dict[str, float] = dict(zip(CELLS, cells.sum(0).tolist(), strict=True))
    _check_identifiable(n_per_cell, columns)
    likelihood = Likelihood(cells, columns[2], order_error)
    logits = minimize(likelihood, FLAGS)
    lowest = likelihood.value(logits)
    mean, precision = np.array([0.0, math.log(PRIOR_B3), 0.0]), np.diag([0.0, prior_sd**-2.0, 0.0])
    shrunk = Shrunk(ConstantsLikelihood(likelihood), mean, precision)
    best = _constants(logits, shrunk, lowest)
    b3 = math.exp(best[1])
    interval = _profile_interval(likelihood, shrunk, best)
    jacobian = np.diag([-math.exp(-best[0]), b3, 1.0])[[1, 2, 0]]
    return PreferenceFit(
        preference=GlobalPreference(b1=1 + 1 / b3, alpha=float(best[2])),
        temperature=math.exp(-best[0]),
        covariance=torch.from_numpy(jacobian @ np.linalg.inv(shrunk.derivatives(best)[1]) @ jacobian.T),
        b1_interval=(1 + 1 / interval[1], 1 + 1 / interval[0] if interval[0] else math.inf),
        likelihood_ratio=max(0.0, 2 * (likelihood.value(minimize(likelihood, FLAGS @ _PAPER_DIRECTION)) - lowest)),
        lack_of_fit=_lack_of_fit(likelihood, lowest, n_per_cell),
        n_per_cell=n_per_cell,
        is_bounded=_is_bounded(likelihood, best, lowest),
    )


def _constants(logits: Array, shrunk: Shrunk, lowest: float) -> Array:
    """(log 1/t, log b3, alpha) of the largest posterior, from the cells' logits of the largest likelihood."""
    w1, w2, w0 = np.linalg.lstsq(FLAGS, logits, rcond=None)[0].tolist()
    if w1 + w2 <= _NOTHING * np.abs(logits).max():
        raise BfpoError(
            "the overall judgments go against helpfulness where both answers are equally safe "
            f"(1/temperature = {w1 + w2:.3g}): check that overall_prefers_better counts the more helpful answer"
        )
    has_prior = bool(shrunk.precision[1, 1])
    refused = BfpoError(
        f"the overall judgments give no weight to safety (b3 = {-w2 / (w1 + w2):.3g}, which must be positive): "
        "judge more pairs whose less helpful answer is safe, or keep the paper's b1 = 3"
    )
    if w2 >= 0 and not has_prior:
        raise refused
    start = np.array([math.log(w1 + w2), math.log(-w2 / (w1 + w2) if w2 < 0 else 0.05), -w0 / (w1 + w2)])
    best = minimize(shrunk, np.eye(3), start) if has_prior else start
    # The prior keeps b3 positive; it must not outweigh judgments that contradict it.
    if w2 >= 0 and 2 * (shrunk.own.value(best) - lowest) > _CHI_SQUARE_95:
        raise refused
    return best


def _lack_of_fit(likelihood: Likelihood, lowest: float, n_per_cell: dict[str, float]) -> float | None:
    if min(n_per_cell.values()) < _PAIRS_TO_TEST:
        return None
    saturated = likelihood.value(minimize(likelihood, np.eye(4), may_diverge=True))
    return max(0.0, 2 * (lowest - saturated))


def _profile_interval(likelihood: Likelihood, shrunk: Shrunk, best: Array) -> tuple[float, float]:
    """The two b3 where twice the drop of the profile log-posterior reaches chi-square's 95 % point."""
    lowest = shrunk.value(best)

    def excess(log_b3: float) -> float:
        away = log_b3 - shrunk.mean[1]
        value = _profile(likelihood, log_b3) + 0.5 * shrunk.precision[1, 1] * away**2
        return 2 * (value - lowest) - _CHI_SQUARE_95

    def bound(direction: float, unbounded: float) -> float:
        inside, outside = float(best[1]), float(best[1]) + direction * _FAR
        if excess(outside) < 0:
            return unbounded
        return math.exp(root_scalar(excess, bracket=sorted((inside, outside))).root)

    return bound(-1, 0.0), bound(1, math.inf)


def _is_bounded(likelihood: Likelihood, best: Array, lowest: float) -> bool:
    """Whether the likelihood itself falls far enough on both sides of the fit, at which the prior falls anyway."""
    ends = (float(best[1]) - _FAR, float(best[1]) + _FAR)
    return all(2 * (_profile(likelihood, end) - lowest) > _CHI_SQUARE_95 for end in ends)


def _profile(likelihood: Likelihood, log_b3: float) -> float:
    """The smallest negative log-likelihood at a given b3."""
    fixed = math.exp(log_b3)
    return likelihood.value(minimize(likelihood, FLAGS @ np.array([[1 + fixed, 0], [-fixed, 0], [0, 1]])))


def _warnings(fit: PreferenceFit) -> Iterator[str]:
    pairs = sum(fit.n_per_cell.values())
    if pairs < ENOUGH_PAIRS:
        yield (
            f"{pairs:,.0f} judged pairs are few: about {ENOUGH_PAIRS:,}, spread evenly over the four cells, determine "
            "b1 usefully"
        )
    small = [cell for cell, count in fit.n_per_cell.items() if count < ENOUGH_PAIRS / 10]
    if small and pairs >= ENOUGH_PAIRS:
        yield (
            f"few judged pairs of {', '.join(small)}: judge pairs with a quota for every cell, and let people flag "
            "their answers, as a quota by a judge's flags makes its probabilities wrong"
        )
    if not fit.is_bounded:
        yield "the judgments alone don't bound b1 on both sides: an end of its interval is the prior's"
    if fit.lack_of_fit_p is not None and fit.lack_of_fit_p < 0.05:
        yield (
            f"the judgments don't follow the labeling function (lack of fit, p = {fit.lack_of_fit_p:.2g}): no b1 and "
            "alpha describe all four cells, so b1 is not the weight of safety in them"
        )
    if fit.lack_of_fit is None:
        few = ", ".join(f"{cell} {count:g}" for cell, count in fit.n_per_cell.items() if count < _PAIRS_TO_TEST)
        yield f"lack of fit can't be tested, because a safety cell has fewer than {_PAIRS_TO_TEST} pairs ({few})"


def checked_columns(*columns: Sequence[float] | Tensor) -> list[Tensor]:
    """The three columns of a fit as float64.

    Raises:
        BfpoError: if their lengths differ, or a value is not a flag or probability.
    """
    names = ("better_is_safe", "worse_is_safe", "overall_prefers_better")
    doubles = [torch.as_tensor(column, dtype=torch.float64).reshape(-1) for column in columns]
    sizes = {name: len(column) for name, column in zip(names, doubles, strict=True)}
    if len(set(sizes.values())) > 1:
        raise BfpoError(f"the three columns must be equally long, not {sizes}")
    for name, column in zip(names, doubles, strict=True):
        wrong = ~((column >= 0) & (column <= 1))
        if wrong.any():
            at = int(wrong.nonzero()[0])
            raise BfpoError(f"{name}, pair {at + 1}: {column[at].item()} is not a flag or a probability from 0 to 1")
    return doubles


def _check_identifiable(n_per_cell: dict[str, float], columns: list[Tensor]) -> None:
    found = ", ".join(f"{cell} {count:g}" for cell, count in n_per_cell.items())
    pairs = len(columns[0])
    if pairs < MINIMUM_PAIRS:
        raise BfpoError(
            f"{pairs} judged pairs are too few to fit b1, alpha and temperature: judge about {ENOUGH_PAIRS:,}, spread "
            "over the four safety cells"
        )
    design = torch.stack([columns[0], columns[1], torch.ones(pairs, dtype=torch.float64)], dim=1)
    if torch.linalg.matrix_rank(design) < 3:
        missing = ", ".join(cell for cell, count in n_per_cell.items() if not count)
        raise BfpoError(
            f"b1, alpha and temperature need judged pairs of three safety cells (better, worse), found {found}: "
            f"judge pairs of {missing or 'other safety'}"
        )
