"""Fit of the labeling function to overall judgments: a logistic regression on the two safety flags."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import root_scalar
from scipy.special import chdtri, expit
from torch import Tensor

from bfpo.errors import BfpoError
from bfpo.objectives.bfpo import GlobalPreference

Array = np.ndarray
MINIMUM_PAIRS = 30
CELLS: tuple[str, ...] = ("SS", "SU", "US", "UU")
# Share of the largest weight below which another one is rounding error.
_NOTHING = 1e-9
FLAGS = np.array([[1.0, 1, 1], [1, 0, 1], [0, 1, 1], [0, 0, 1]])
PAPER_DIRECTION = np.array([[1.5], [-0.5], [-0.5]])
CHI_SQUARE_95_ONE_DEGREE = float(chdtri(1, 0.05))


@dataclass(frozen=True)
class PreferenceFit:
    """The maximum-likelihood labeling function, with its uncertainty.

    Attributes:
        preference: the fitted labeling function.
        temperature: t in P(overall prefers the more helpful answer) = sigmoid(T/t).
        covariance: [3, 3] covariance of (b3, alpha, temperature) with b3 = 1/(b1 - 1), from the observed information by
            the delta method.
        b1_interval: 95 % profile-likelihood interval; an end is 1 or infinity if the likelihood doesn't bound it.
        likelihood_ratio: twice the log-likelihood's gain over b1 = 3, alpha = 1/2 at their own best temperature;
            chi-square with two degrees of freedom if the paper's values are true.
        n_per_cell: (expected) number of pairs by the two flags (more, less helpful answer).
    """

    preference: GlobalPreference
    temperature: float
    covariance: Tensor
    b1_interval: tuple[float, float]
    likelihood_ratio: float
    n_per_cell: dict[str, float]

    @property
    def p_value(self) -> float:
        """P-value of `likelihood_ratio` under the paper's values."""
        return math.exp(-self.likelihood_ratio / 2)


def fit_preference(
    better_is_safe: Sequence[float] | Tensor,
    worse_is_safe: Sequence[float] | Tensor,
    overall_prefers_better: Sequence[float] | Tensor,
) -> PreferenceFit:
    """Fit logit = w1 s_w + w2 s_l + w0, so 1/temperature = w1 + w2, b3 = -w2/(w1 + w2), alpha = -w0/(w1 + w2).

    If flags are probabilities, the likelihood is the weighted mean of the four sigmoids, with independent errors of the
    two flags.

    Args:
        better_is_safe: [N] flag or probability that the more helpful answer is safe.
        worse_is_safe: [N] the same for the less helpful answer.
        overall_prefers_better: [N] flag or probability that the more helpful answer was preferred overall.

    Raises:
        BfpoError: if shapes or values are wrong, pairs are too few, the flags don't identify the three constants,
            the flags separate the judgments perfectly (no temperature), or safety has no positive weight (b3 <= 0).
    """
    columns = checked_columns(better_is_safe, worse_is_safe, overall_prefers_better)
    cells = cell_probabilities(columns[0], columns[1])
    counts = cells.sum(0)
    n_per_cell: dict[str, float] = dict(zip(CELLS, counts.tolist(), strict=True))
    _check_identifiable(n_per_cell, columns)
    likelihood = Likelihood(cells, columns[2])
    best = minimize(likelihood, np.eye(3))
    w1, w2, w0 = best.tolist()
    if w1 + w2 <= _NOTHING * np.abs(best).max():
        raise BfpoError(
            "the overall judgments go against helpfulness where both answers are equally safe "
            f"(1/temperature = {w1 + w2:.3g}): check that overall_prefers_better counts the more helpful answer"
        )
    if w2 >= 0:
        raise BfpoError(
            f"the overall judgments give no weight to safety (b3 = {-w2 / (w1 + w2):.3g}, which must be positive): "
            "judge more pairs whose less helpful answer is safe, or keep the paper's b1 = 3"
        )
    b3, alpha, temperature = -w2 / (w1 + w2), -w0 / (w1 + w2), 1 / (w1 + w2)
    lowest = likelihood.value(best)
    paper = likelihood.value(minimize(likelihood, PAPER_DIRECTION))
    smallest, largest = _profile_interval(likelihood, b3, lowest)
    return PreferenceFit(
        preference=GlobalPreference(b1=1 + 1 / b3, alpha=alpha),
        temperature=temperature,
        covariance=_delta_method(likelihood, best),
        b1_interval=(1 + 1 / largest, 1 + 1 / smallest if smallest else math.inf),
        likelihood_ratio=max(0.0, 2 * (paper - lowest)),
        n_per_cell=n_per_cell,
    )


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


def cell_probabilities(better: Tensor, worse: Tensor) -> Tensor:
    """[N, 4] probability of each safety cell, in the order of `CELLS`."""
    return torch.stack([better * worse, better * (1 - worse), (1 - better) * worse, (1 - better) * (1 - worse)], dim=1)


def _check_identifiable(n_per_cell: dict[str, float], columns: list[Tensor]) -> None:
    found = ", ".join(f"{cell} {count:g}" for cell, count in n_per_cell.items())
    pairs = len(columns[0])
    if pairs < MINIMUM_PAIRS:
        raise BfpoError(f"{pairs} judged pairs are too few to fit b1, alpha and temperature: judge {MINIMUM_PAIRS}")
    design = torch.stack([columns[0], columns[1], torch.ones(pairs, dtype=torch.float64)], dim=1)
    if torch.linalg.matrix_rank(design) < 3:
        missing = ", ".join(cell for cell, count in n_per_cell.items() if not count)
        raise BfpoError(
            f"b1, alpha and temperature need judged pairs of three safety cells (better, worse), found {found}: "
            f"judge pairs of {missing or 'other safety'}"
        )


class Smooth(Protocol):
    """A function of three constants with two derivatives, for `minimize`."""

    def value(self, at: Array, /) -> float:
        """The value at a point."""
        ...

    def derivatives(self, at: Array, /) -> tuple[Array, Array]:
        """Gradient [3] and Hessian [3, 3] at a point."""
        ...


class Likelihood:
    """The negative log-likelihood of (w1, w2, w0), on distinct rows (at most four if all flags are certain)."""

    def __init__(self, cells: Tensor, outcomes: Tensor) -> None:
        rows, place = torch.unique(cells, dim=0, return_inverse=True)
        zeros = torch.zeros(len(rows), dtype=torch.float64)
        self.rows = rows.numpy()
        self.preferred = zeros.index_add(0, place, outcomes).numpy()
        self.other = zeros.index_add(0, place, 1 - outcomes).numpy()

    def value(self, weights: Array) -> float:
        """The negative log-likelihood."""
        logits = FLAGS @ weights
        yes, no = self.rows @ expit(logits), self.rows @ expit(-logits)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(-(self.preferred @ np.log(yes) + self.other @ np.log(no)))

    def derivatives(self, weights: Array) -> tuple[Array, Array]:
        """Gradient [3] and Hessian [3, 3]."""
        logits = FLAGS @ weights
        sigmoid, rest = expit(logits), expit(-logits)
        yes, no = self.rows @ sigmoid, self.rows @ rest
        pull = self.preferred / yes - self.other / no
        slopes = self.rows @ ((sigmoid * rest)[:, None] * FLAGS)
        squares = self.preferred / yes**2 + self.other / no**2
        bend = (pull @ self.rows) * sigmoid * rest * (rest - sigmoid)
        return -pull @ slopes, (slopes.T * squares) @ slopes - (FLAGS.T * bend) @ FLAGS


def minimize(likelihood: Smooth, directions: Array, start: Array | None = None) -> Array:
    """Minimize over combinations of the columns of ``directions``, by damped Newton steps."""
    at = np.zeros(directions.shape[1]) if start is None else start
    value = likelihood.value(directions @ at)
    for _ in range(200):
        gradient, hessian = likelihood.derivatives(directions @ at)
        gradient = directions.T @ gradient
        if np.abs(gradient).max() <= 1e-9 * max(1.0, value):
            return directions @ at
        # With uncertain flags the likelihood is a mixture's, whose curvature may be negative far from the optimum.
        curvature, axes = np.linalg.eigh(directions.T @ hessian @ directions)
        step = axes @ ((axes.T @ gradient) / np.maximum(np.abs(curvature), 1e-8 * np.abs(curvature).max()))
        size = 1.0
        while size > 1e-12 and not likelihood.value(directions @ (at - size * step)) < value:
            size /= 2
        if size <= 1e-12:
            return directions @ at
        at = at - size * step
        value = likelihood.value(directions @ at)
        if np.abs(directions @ at).max() > 50:
            raise BfpoError(
                "the overall judgments follow the flags without exception, so temperature and b1 have no finite best "
                "value: judge more pairs, including close calls"
            )
    raise BfpoError("the fit of the labeling function did not converge in 200 Newton steps: judge more pairs")


def _delta_method(likelihood: Likelihood, best: Array) -> Tensor:
    w1, w2, w0 = best
    total = w1 + w2
    jacobian = np.array([[w2, -w1, 0], [w0, w0, -total], [-1, -1, 0]]) / total**2
    return torch.from_numpy(jacobian @ np.linalg.inv(likelihood.derivatives(best)[1]) @ jacobian.T)


def _profile_interval(likelihood: Likelihood, b3: float, lowest: float) -> tuple[float, float]:
    """The two b3 where twice the drop of the profile log-likelihood reaches chi-square's 95 % point."""

    def excess(log_b3: float) -> float:
        fixed = math.exp(log_b3)
        directions = np.array([[1 + fixed, 0], [-fixed, 0], [0, 1]])
        return 2 * (likelihood.value(minimize(likelihood, directions)) - lowest) - CHI_SQUARE_95_ONE_DEGREE

    def bound(direction: float, unbounded: float) -> float:
        inside, outside = math.log(b3), math.log(b3) + direction * math.log(1e4)
        if excess(outside) < 0:
            return unbounded
        return math.exp(root_scalar(excess, bracket=sorted((inside, outside))).root)

    return bound(-1, 0.0), bound(1, math.inf)
