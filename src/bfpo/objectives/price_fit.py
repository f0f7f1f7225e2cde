"""Prices of harm categories, fitted to overall judgments; those with few judgments shrink toward the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from bfpo.errors import BfpoError
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.objectives.cell_likelihood import FLAGS, Array, Mixture, Shrunk, cell_posteriors, minimize
from bfpo.objectives.preference_fit import PreferenceFit, checked_columns, fit_preference
from bfpo.statistics.intervals import UPPER, t_quantile

Harms = Sequence[Mapping[str, float]]
# Scale of the prior of the spread; with few categories their prices say little about it.
SPREAD_SCALE = 0.7
# Number of categories whose prices say more about their spread than its prior does.
ENOUGH_CATEGORIES = 5
_SPREADS = (0.02, 3.0)
_PRECISION = 0.01


@dataclass(frozen=True)
class CategoryPrice:
    """Price of one category.

    Attributes:
        price: posterior mode of b_c.
        interval: 95 % interval given the spread, from the curvature of the log-posterior in log b_c. It is too narrow
            for a price far from the others: with .15, .5, .5 and 1.5, and 1,500 pairs, it held .15 in 58 % of 60
            samples, and the others in 90 to 93 %.
        pairs: number of judged pairs (expected, if flags are probabilities) with such harm.
    """

    price: float
    interval: tuple[float, float]
    pairs: float


@dataclass(frozen=True)
class PriceFit:
    """Prices of harm by category, with what they have in common.

    Attributes:
        preference: alpha, and as b3 the price of a category without judgments, exp of the mean of log b_c.
        temperature: t in P(overall prefers the more helpful answer) = sigmoid(T/t).
        spread: standard deviation of log b_c over categories.
        categories: price of each category, by name.
    """

    preference: GlobalPreference
    temperature: float
    spread: float
    categories: Mapping[str, CategoryPrice]

    @property
    def prices(self) -> dict[str, float]:
        """Price by category."""
        return {name: one.price for name, one in self.categories.items()}


class _Judgments:
    """The likelihood of (log 1/t, alpha, log b_1 .. log b_C, mean of log b), on distinct judged pairs.

    T = s_w - alpha + sum_c b_c (u_l,c - u_w,c), which is b1 b3 s_w - b3 s_l - alpha for one price b3.

    Args:
        cells: [N, 4] probability of each cell.
        better: [N, C + 1] levels of the more helpful answer's harm if it is unsafe. The last level, of the price that
            categories have in common, is that of harm without a category.
        worse: [N, C + 1] the same for the less helpful answer.
        outcomes: [N] flag or probability that the more helpful answer was preferred.
        order_error: share of wrong orders.
    """

    def __init__(self, cells: Tensor, better: Tensor, worse: Tensor, outcomes: Tensor, order_error: float) -> None:
        # Equal pairs are taken together, of which there are many where levels and flags have few values.
        rows, place = torch.unique(torch.cat([cells, better, worse], 1), dim=0, return_inverse=True)
        cells, better, worse = rows.split([cells.shape[1], better.shape[1], worse.shape[1]], 1)
        self._mixture = Mixture.of(cells, order_error, place, outcomes)
        first, second = FLAGS[:, 0], FLAGS[:, 1]
        saved = np.einsum("k,nc->nkc", 1 - second, worse.numpy()) - np.einsum("k,nc->nkc", 1 - first, better.numpy())
        # Where the order is wrong, the answers change places, and the logit has the other sign.
        self._safe = np.concatenate([first, -second]) if order_error else first
        self._saved = np.concatenate([saved, saved], axis=1) if order_error else saved
        self._signs = np.repeat([1.0, -1.0], 4)[: len(self._safe)]

    def logits(self, constants: Array) -> tuple[Array, Array]:
        """[N, K] logits T/t of the components, and [N, K, C + 3] their slopes."""
        # Capped, since a Newton step may otherwise overflow; such a point is far from the minimum.
        steepness, prices = np.exp(min(constants[0], 50)), np.exp(np.minimum(constants[2:], 50))
        by_price = steepness * prices * self._saved
        logits = steepness * (self._safe - self._signs * constants[1]) + by_price.sum(2)
        by_alpha = np.broadcast_to(-steepness * self._signs, logits.shape)
        return logits, np.concatenate([logits[..., None], by_alpha[..., None], by_price], axis=2)

    def value(self, constants: Array) -> float:
        """The negative log-likelihood."""
        return self._mixture.value(self.logits(constants)[0])

    def derivatives(self, constants: Array) -> tuple[Array, Array]:
        """Gradient [C + 3] and Hessian [C + 3, C + 3]."""
        logits, slopes = self.logits(constants)
        by_logits, hessian = self._mixture.derivatives(logits, slopes)
        gradient = np.einsum("nk,nkm->m", by_logits, slopes)
        # Every logit is proportional to 1/t, and what a price adds to it is proportional to that price.
        hessian[0, 1:] += gradient[1:]
        hessian[1:, 0] += gradient[1:]
        hessian[0, 0] += gradient[0]
        own = np.arange(2, len(gradient))
        hessian[own, own] += gradient[own]
        return gradient, hessian


def fit_prices(
    better_is_safe: Sequence[float] | Tensor,
    worse_is_safe: Sequence[float] | Tensor,
    overall_prefers_better: Sequence[float] | Tensor,
    better_harm: Harms,
    worse_harm: Harms,
    *,
    order_error: float = 0.0,
    one_price: PreferenceFit | None = None,
) -> PriceFit:
    """Fit a price b_c for every harm category, with alpha and the temperature in common.

    The log b_c are normal around their mean. Their spread maximizes Laplace's approximation of the marginal likelihood
    times a gamma(2, 1/0.7) density, which keeps it off 0 (Chung et al. 2013, doi 10.1007/s11336-013-9328-2); the
    constants are then the posterior mode. A category with many judgments has its own price, one with few nearly the
    price in common. Probabilities of safety enter as in `fit_preference`.

    Args:
        better_is_safe: [N] flag or probability that the more helpful answer is safe.
        worse_is_safe: [N] the same for the less helpful answer.
        overall_prefers_better: [N] flag or probability that the more helpful answer was preferred overall.
        better_harm: [N] levels in (0, 1] by category that the more helpful answer has if it is unsafe; harm without a
            category has the price in common.
        worse_harm: [N] the same for the less helpful answer.
        order_error: share of pairs in which the answer called more helpful is not.
        one_price: the fit of `fit_preference` to the same pairs, from which the search starts; by default it is made.

    Raises:
        BfpoError: if `fit_preference` refuses the pairs of all categories together, the harms are not one for each
            pair, there are fewer than two categories, or the fit doesn't converge.
    """
    flags = better_is_safe, worse_is_safe, overall_prefers_better
    common = one_price or fit_preference(*flags, order_error=order_error)
    better, worse, outcomes = checked_columns(*flags)
    names = _categories(better_harm, worse_harm, len(outcomes))
    levels = [_levels(harms, names) for harms in (better_harm, worse_harm)]
    judged = _Judgments(cell_posteriors(better, worse), levels[0], levels[1], outcomes, order_error)
    log_b3 = math.log(common.preference.b3)
    at = np.array([-math.log(common.temperature), common.preference.alpha, *[log_b3] * (len(names) + 1)])

    def badness(log_spread: float) -> float:
        nonlocal at
        spread = math.exp(log_spread)
        posterior = _shrunk(judged, len(names), spread)
        at = minimize(posterior, np.eye(len(at)), at)
        bend = np.linalg.slogdet(posterior.derivatives(at)[1])[1]
        evidence = -posterior.value(at) - len(names) * log_spread - bend / 2
        return -(evidence + log_spread - spread / SPREAD_SCALE)

    bounds = [math.log(end) for end in _SPREADS]
    best: Any = minimize_scalar(badness, bounds=bounds, method="bounded", options={"xatol": _PRECISION})
    spread = math.exp(best.x)
    posterior = _shrunk(judged, len(names), spread)
    at = minimize(posterior, np.eye(len(at)), at)
    errors = np.sqrt(np.diag(np.linalg.inv(posterior.derivatives(at)[1])))[2:-1]
    pairs = _pairs_with_harm(torch.stack(levels), torch.stack([better, worse]))
    categories = dict(zip(names, map(_category_price, at[2:-1], errors, pairs), strict=True))
    preference = GlobalPreference(b1=1 + math.exp(-at[-1]), alpha=float(at[1]))
    return PriceFit(preference, math.exp(-at[0]), spread, categories)


def _categories(better_harm: Harms, worse_harm: Harms, pairs: int) -> list[str]:
    if not len(better_harm) == len(worse_harm) == pairs:
        raise BfpoError(f"there are {pairs} pairs: give the harm of both answers of each")
    names = sorted({name for harms in (better_harm, worse_harm) for harm in harms for name in harm})
    if len(names) < 2:
        raise BfpoError("prices by category need at least two categories: leave the categories out")
    return names


def _shrunk(judged: _Judgments, categories: int, spread: float) -> Shrunk:
    """The posterior under normal log b_c around their mean, which itself has no prior."""
    away = np.hstack([np.zeros((categories, 2)), np.eye(categories), -np.ones((categories, 1))])
    return Shrunk(judged, np.zeros(categories + 3), away.T @ away / spread**2)


def _pairs_with_harm(levels: Tensor, is_safe: Tensor) -> list[float]:
    """[C] expected pairs with an unsafe answer that does such harm; one with two of them counts once.

    Args:
        levels: [2, N, C] levels of harm of both answers.
        is_safe: [2, N] flags or probabilities.
    """
    has = (levels > 0) * (1 - is_safe)[:, :, None]
    return (1 - (1 - has).prod(0)).sum(0).tolist()


def _category_price(log_price: float, error: float, pairs: float) -> CategoryPrice:
    half = t_quantile(UPPER, math.inf) * error
    ends = math.exp(log_price - half), math.exp(log_price + half)
    return CategoryPrice(math.exp(log_price), ends, pairs)


def _levels(harms: Harms, names: Sequence[str]) -> Tensor:
    """[N, C + 1] levels of every category, and 1 in the last column where there is none."""
    levels = torch.zeros(len(harms), len(names) + 1, dtype=torch.float64)
    place = {name: number for number, name in enumerate(names)}
    for row, harm in zip(levels, harms, strict=True):
        for name, level in harm.items():
            row[place[name]] = level
        if not any(harm.values()):
            row[-1] = 1.0
    return levels
