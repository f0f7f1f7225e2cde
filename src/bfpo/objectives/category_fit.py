"""Labeling constants for each harm category, fitted by empirical Bayes: small categories shrink toward the mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from bfpo.errors import BfpoError
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.objectives.preference_fit import (
    CELLS,
    Array,
    Likelihood,
    cell_probabilities,
    checked_columns,
    fit_preference,
    minimize,
)

_STEPS = 200
_TOLERANCE = 1e-3
_FIRST_VARIANCE = 0.1
_SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True)
class CategoryConstants:
    """One category's labeling function.

    Attributes:
        preference: b1 and alpha of the category.
        temperature: temperature of its judgments.
        n_per_cell: number of its pairs by safety cell.
    """

    preference: GlobalPreference
    temperature: float
    n_per_cell: dict[str, float]


@dataclass(frozen=True)
class CategoryFit:
    """Labeling functions by category.

    Attributes:
        categories: constants of each category, by name.
        mean: [3] mean over categories of log(1/temperature), log(b3) and alpha.
        covariance: [3, 3] covariance of the three over categories, without sampling error.
    """

    categories: Mapping[str, CategoryConstants]
    mean: Array
    covariance: Array

    def record(self) -> dict[str, Any]:
        """The fit as JSON."""
        return {
            "mean": self.mean.tolist(),
            "covariance": self.covariance.tolist(),
            "by_category": {name: asdict(one) for name, one in self.categories.items()},
        }


@dataclass(frozen=True)
class _Shrunk:
    """The negative log-posterior of a category's (log 1/t, log b3, alpha), up to a constant."""

    own: Likelihood
    mean: Array
    precision: Array

    def value(self, constants: Array) -> float:
        away = constants - self.mean
        return self.own.value(_weights(constants)) + 0.5 * float(away @ self.precision @ away)

    def derivatives(self, constants: Array) -> tuple[Array, Array]:
        weights = _weights(constants)
        steepness, b3 = math.exp(constants[0]), math.exp(constants[1])
        by_b3, by_alpha = np.array([steepness * b3, -steepness * b3, 0]), np.array([0, 0, -steepness])
        jacobian = np.column_stack([weights, by_b3, by_alpha])
        gradient, hessian = self.own.derivatives(weights)
        along, across, offset = gradient @ weights, gradient @ by_b3, gradient @ by_alpha
        bend = np.array([[along, across, offset], [across, across, 0], [offset, 0, 0]])
        return (
            jacobian.T @ gradient + self.precision @ (constants - self.mean),
            jacobian.T @ hessian @ jacobian + bend + self.precision,
        )


def _weights(constants: Array) -> Array:
    """The logistic weights (w1, w2, w0) of (log 1/t, log b3, alpha)."""
    # Capped, since a Newton step may otherwise overflow; such a point is far from the minimum.
    steepness, b3 = np.exp(np.minimum(constants[:2], 50))
    return steepness * np.array([1 + b3, -b3, -constants[2]])


def fit_categories(
    better_is_safe: Sequence[float] | Tensor,
    worse_is_safe: Sequence[float] | Tensor,
    overall_prefers_better: Sequence[float] | Tensor,
    categories: Sequence[str],
) -> CategoryFit:
    """Fit b1 and alpha of every category, by empirical Bayes.

    The prior of a category's (log 1/t, log b3, alpha), a parametrization of its logistic weights with b3 > 0, is normal
    around the mean over categories. Mean and covariance maximize the marginal likelihood, by EM with Laplace's
    approximation of each category's posterior; a category's constants are then its posterior mode. A category with many
    pairs keeps its own constants, one with few pairs gets nearly the mean.

    Args:
        better_is_safe: [N] flag or probability that the more helpful answer is safe.
        worse_is_safe: [N] the same for the less helpful answer.
        overall_prefers_better: [N] flag or probability that the more helpful answer was preferred overall.
        categories: [N] category of each pair.

    Raises:
        BfpoError: if `fit_preference` refuses the pairs of all categories together, or there are fewer than two.
    """
    common = fit_preference(better_is_safe, worse_is_safe, overall_prefers_better)
    columns = checked_columns(better_is_safe, worse_is_safe, overall_prefers_better)
    names = sorted(set(categories))
    if len(categories) != len(columns[0]):
        raise BfpoError(f"there are {len(columns[0])} pairs and {len(categories)} categories: give every pair one")
    if len(names) < 2:
        raise BfpoError("labeling constants by category need at least two categories: leave the column out")
    cells = cell_probabilities(columns[0], columns[1])
    members = {name: [at for at, other in enumerate(categories) if other == name] for name in names}
    own = {name: Likelihood(cells[at], columns[2][at]) for name, at in members.items()}
    start = np.array([-math.log(common.temperature), math.log(common.preference.b3), common.preference.alpha])
    fitted, mean, covariance = _expectation_maximization(list(own.values()), start)
    constants = {}
    for name, (steepness, b3, alpha) in zip(names, fitted, strict=True):
        n_per_cell: dict[str, float] = dict(zip(CELLS, cells[members[name]].sum(0).tolist(), strict=True))
        preference = GlobalPreference(b1=1 + math.exp(-b3), alpha=float(alpha))
        constants[name] = CategoryConstants(preference, math.exp(-steepness), n_per_cell)
    return CategoryFit(constants, mean, covariance)


def _expectation_maximization(own: Sequence[Likelihood], start: Array) -> tuple[Array, Array, Array]:
    """Constants of every category [C, 3], and their mean [3] and covariance [3, 3] over categories."""
    mean, covariance = start, _FIRST_VARIANCE * np.eye(3)
    fitted = np.tile(start, (len(own), 1))
    for _ in range(_STEPS):
        precision = np.linalg.inv(covariance)
        shrunk = [_Shrunk(likelihood, mean, precision) for likelihood in own]
        fitted = np.array([minimize(one, np.eye(3), at) for one, at in zip(shrunk, fitted, strict=True)])
        uncertain = [np.linalg.inv(one.derivatives(at)[1]) for one, at in zip(shrunk, fitted, strict=True)]
        mean = fitted.mean(0)
        away = fitted - mean
        updated = (away.T @ away + sum(uncertain)) / len(own) + _SMALLEST_VARIANCE * np.eye(3)
        settled = np.abs(updated - covariance).max() < _TOLERANCE * np.abs(covariance).max()
        covariance = updated
        if settled:
            break
    return fitted, mean, covariance
