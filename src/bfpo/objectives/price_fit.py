"""Prices of harm categories, fitted to overall judgments; those with few judgments shrink toward the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor
from torch.nn.functional import logsigmoid

from bfpo.errors import BfpoError
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.objectives.cell_likelihood import FLAGS, Array, cell_posteriors
from bfpo.objectives.preference_fit import PreferenceFit, checked_columns, fit_preference
from bfpo.statistics.intervals import UPPER, t_quantile

Harms = Sequence[Mapping[str, float]]
# Scale of the prior of the spread; with few categories their prices say little about it.
SPREAD_SCALE = 0.7
# Number of categories whose prices say more about their spread than its prior does.
ENOUGH_CATEGORIES = 5
_SPREADS = (0.02, 3.0)
_PRECISION = 0.01
# Gain in log-posterior by another Newton step, in nats, below which the mode is found.
_NO_GAIN = 1e-6
# Flags of the more and the less helpful answer in each cell of `cell_posteriors`.
_BETTER, _WORSE, _ = torch.from_numpy(FLAGS.T)


@dataclass(frozen=True)
class CategoryPrice:
    """Price of one category.

    Attributes:
        price: posterior mode of b_c.
        interval: 95 % interval, from the curvature of the log-posterior in log b_c.
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

    def record(self) -> dict[str, Any]:
        """The fit as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Judgments:
    """Distinct judged pairs: cells [N, 4], and the levels [N, C + 1] of each answer's harm if it is unsafe.

    The last level, of the price that categories have in common, is that of harm without a category. ``preferred`` and
    ``other`` [N] count the judgments for the more and for the less helpful answer.
    """

    cells: Tensor
    better: Tensor
    worse: Tensor
    preferred: Tensor
    other: Tensor
    order_error: float

    @classmethod
    def of(cls, cells: Tensor, better: Tensor, worse: Tensor, outcomes: Tensor, order_error: float) -> _Judgments:
        """Equal pairs taken together, of which there are many where levels and flags have few values."""
        rows, place = torch.unique(torch.cat([cells, better, worse], 1), dim=0, return_inverse=True)
        zeros = torch.zeros(len(rows), dtype=torch.float64)
        preferred, other = zeros.index_add(0, place, outcomes), zeros.index_add(0, place, 1 - outcomes)
        cells, better, worse = rows.split([cells.shape[1], better.shape[1], worse.shape[1]], 1)
        return cls(cells, better, worse, preferred, other, order_error)

    def loss(self, constants: Tensor, spread: float) -> Tensor:
        """Negative log-posterior of (log 1/t, alpha, log b_1 .. log b_C, mean of log b), up to a constant.

        T = s_w - alpha + sum_c b_c (u_l,c - u_w,c), which is b1 b3 s_w - b3 s_l - alpha for one price b3. Where the
        order is wrong, the answers change places, and preferring "better" means not preferring the more helpful one.
        """
        prices = constants[2:].exp()
        costs = (1 - _WORSE) * (self.worse @ prices)[:, None] - (1 - _BETTER) * (self.better @ prices)[:, None]
        orders = [
            constants[0].exp() * (safe - constants[1] + sign * costs) for safe, sign in ((_BETTER, 1), (_WORSE, -1))
        ]
        logits = torch.cat([orders[0], -orders[1]], 1)
        weights = torch.cat([(1 - self.order_error) * self.cells, self.order_error * self.cells], 1).log()
        yes, no = (torch.logsumexp(weights + logsigmoid(sign * logits), 1) for sign in (1, -1))
        away = constants[2:-1] - constants[-1]
        return (away**2).sum() / (2 * spread**2) - (self.preferred * yes + self.other * no).sum()

    def mode(self, start: Array, spread: float) -> tuple[Array, Array, float]:
        """The posterior mode, the Hessian there, and the loss."""

        def value(at: Array) -> float:
            return float(self.loss(torch.from_numpy(at), spread))

        def gradient(at: Array) -> Array:
            return torch.func.grad(self.loss)(torch.from_numpy(at), spread).numpy()

        def hessian(at: Array) -> Array:
            return torch.func.hessian(self.loss)(torch.from_numpy(at), spread).numpy()

        found: Any = minimize(value, start, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-6})
        bend = hessian(found.x)
        # At the mode, rounding may leave the last step without the improvement that it predicts, which is no failure.
        if not (found.success or 0 <= found.jac @ np.linalg.solve(bend, found.jac) <= _NO_GAIN):
            raise BfpoError(
                f"the fit of the prices did not converge ({found.message}): judge more pairs of each category"
            )
        return found.x, bend, float(found.fun)


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
    better, worse, outcomes = checked_columns(better_is_safe, worse_is_safe, overall_prefers_better)
    names = sorted({name for harms in (better_harm, worse_harm) for harm in harms for name in harm})
    if not len(better_harm) == len(worse_harm) == len(outcomes):
        raise BfpoError(f"there are {len(outcomes)} pairs: give the harm of both answers of each")
    if len(names) < 2:
        raise BfpoError("prices by category need at least two categories: leave the categories out")
    levels = [_levels(harms, names) for harms in (better_harm, worse_harm)]
    judged = _Judgments.of(cell_posteriors(better, worse), levels[0], levels[1], outcomes, order_error)
    log_b3 = math.log(common.preference.b3)
    at = np.array([-math.log(common.temperature), common.preference.alpha, *[log_b3] * (len(names) + 1)])

    def badness(log_spread: float) -> float:
        nonlocal at
        spread = math.exp(log_spread)
        at, hessian, loss = judged.mode(at, spread)
        evidence = -loss - len(names) * log_spread - np.linalg.slogdet(hessian)[1] / 2
        return -(evidence + log_spread - spread / SPREAD_SCALE)

    bounds = [math.log(end) for end in _SPREADS]
    best: Any = minimize_scalar(badness, bounds=bounds, method="bounded", options={"xatol": _PRECISION})
    spread = math.exp(best.x)
    at, hessian, _ = judged.mode(at, spread)
    errors = np.sqrt(np.diag(np.linalg.inv(hessian)))[2:]
    pairs = _pairs_with_harm(torch.stack(levels), torch.stack([better, worse]))
    categories = dict(zip(names, map(_category_price, at[2:-1], errors, pairs), strict=True))
    preference = GlobalPreference(b1=1 + math.exp(-at[-1]), alpha=float(at[1]))
    return PriceFit(preference, math.exp(-at[0]), spread, categories)


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
