"""The likelihood of overall judgments by safety cell, with uncertain flags and orders, and its minimum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from scipy import optimize
from scipy.special import expit, log_expit
from torch import Tensor

from bfpo.errors import BfpoError

Array = np.ndarray
CELLS: tuple[str, ...] = ("SS", "SU", "US", "UU")
# Logits of the cells from the weights (w1, w2, w0) of the two flags and the constant.
FLAGS = np.array([[1.0, 1, 1], [1, 0, 1], [0, 1, 1], [0, 0, 1]])
# The cell of a pair whose answers change places.
_MIRRORED = np.eye(4)[[0, 2, 1, 3]]
# Steps of EM before the search for the cells' shares, and the smallest share in it.
_EM_STEPS, _SMALLEST = 10, 1e-12
# Largest distance in nats from the largest log-likelihood, of a pair and of all of them.
_NEAR_BY_PAIR, _NEAR = 1e-5, 1e-6
# Constants beyond which there is no finite minimum.
_FAR = 50


def cell_posteriors(better: Tensor, worse: Tensor) -> Tensor:
    """[N, 4] probability of each safety cell given the flags, in the order of `CELLS`.

    The flags of a pair are not independent: P(cell | evidence) is proportional to P(cell) times the likelihoods of the
    evidence on either answer, p/P(safe) or (1 - p)/(1 - P(safe)). P(safe) is the mean of all flags, as they are
    calibrated, and the shares of the cells maximize their likelihood; certain flags count as known. Multiplying
    the probabilities themselves would take the two answers as independent a priori.

    Args:
        better: [N] flag or calibrated probability that the more helpful answer is safe.
        worse: [N] the same for the less helpful answer.

    Raises:
        BfpoError: if the search for the shares doesn't get near enough.
    """
    rate = float(torch.cat([better, worse]).mean())
    if not 0 < rate < 1:
        return _outer(better, worse)
    first, second = (torch.stack([p / rate, (1 - p) / (1 - rate)]) for p in (better, worse))
    evidence = (first[:, None] * second[None, :]).reshape(4, -1).T
    distinct, place, counts = torch.unique(evidence, dim=0, return_inverse=True, return_counts=True)
    shares = _cell_shares(distinct.numpy(), counts.numpy() / len(better))
    posteriors = torch.from_numpy(shares) * distinct
    return (posteriors / posteriors.sum(1, keepdim=True))[place]


def _cell_shares(evidence: Array, weights: Array) -> Array:
    """[4] shares of the cells that maximize their mean log-likelihood, which is concave, on [N, 4] weighted evidence.

    EM alone takes very many steps where flags say little; its first ones bring the search near enough.
    """

    def slopes(shares: Array) -> Array:
        return evidence.T @ (weights / (evidence @ shares))

    shares = np.full(4, 0.25)
    for _ in range(_EM_STEPS):
        shares = shares * slopes(shares)
    found: Any = optimize.minimize(
        lambda shares: (-float(weights @ np.log(evidence @ shares)), -slopes(shares)),
        shares,
        jac=True,
        method="SLSQP",
        bounds=[(_SMALLEST, 1.0)] * 4,
        constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    # At the maximum no slope is above 1, and elsewhere the largest one bounds the distance from it.
    if not np.log(slopes(found.x / found.x.sum()).max()) < _NEAR_BY_PAIR:
        raise BfpoError(
            "the shares of the safety cells can't be estimated from these flags: let people flag some answers"
        )
    return found.x


def _outer(better: Tensor, worse: Tensor) -> Tensor:
    return torch.stack([better * worse, better * (1 - worse), (1 - better) * worse, (1 - better) * (1 - worse)], dim=1)


class Smooth(Protocol):
    """A function of some constants with two derivatives, for `minimize`."""

    def value(self, at: Array, /) -> float:
        """The value at a point."""
        ...

    def derivatives(self, at: Array, /) -> tuple[Array, Array]:
        """Gradient [M] and Hessian [M, M] at a point."""
        ...


@dataclass(frozen=True)
class Mixture:
    """The negative log-likelihood of judgments, each preferred with probability sum_k weights_k sigmoid(logit_k).

    Attributes:
        log_weights: [N, K] logarithm of the probability of each component, which is a cell and an order of the answers.
        preferred: [N] number of judgments for the answer called more helpful.
        other: [N] number of judgments for the other one.
    """

    log_weights: Array
    preferred: Array
    other: Array

    @classmethod
    def of(cls, cells: Tensor, order_error: float, place: Tensor, outcomes: Tensor) -> Mixture:
        """Components of the cells [N, 4] as they are, and then, if orders err, of the cells in the wrong order.

        In a pair whose order is wrong, the other answer is the more helpful one: the cell is the mirrored one, and
        preferring "better" means not preferring it, so that its logit is the mirrored cell's with the other sign.
        Each judgment has its ``place`` among the cells, and its outcome, a flag or probability.
        """
        zeros = torch.zeros(len(cells), dtype=torch.float64)
        preferred, other = zeros.index_add(0, place, outcomes), zeros.index_add(0, place, 1 - outcomes)
        own = cells.numpy()
        weights = np.hstack([(1 - order_error) * own, order_error * own]) if order_error else own
        with np.errstate(divide="ignore"):
            return cls(np.log(weights), preferred.numpy(), other.numpy())

    def value(self, logits: Array) -> float:
        """The negative log-likelihood of the components' logits, [K] or [N, K]."""
        yes, no = (np.logaddexp.reduce(self.log_weights + log_expit(sign * logits), axis=1) for sign in (1, -1))
        return -float(self.preferred @ yes + self.other @ no)

    def derivatives(self, logits: Array, slopes: Array) -> tuple[Array, Array]:
        """By the components' logits, [N, K], and by constants on which these depend linearly, [M, M].

        Args:
            logits: [N, K] logits.
            slopes: [N, K, M] their derivatives by the constants. If these are not constant, the Hessian lacks the sum
                of the first derivatives by logits times the logits' Hessians.
        """
        by_logits, hessian = np.zeros_like(logits), np.zeros((slopes.shape[2],) * 2)
        flat = slopes.reshape(-1, slopes.shape[2])
        for counts, sign in ((self.preferred, 1), (self.other, -1)):
            terms = self.log_weights + log_expit(sign * logits)
            share = np.exp(terms - np.logaddexp.reduce(terms, axis=1, keepdims=True))
            rest = expit(-sign * logits)
            pull = share * rest
            score = np.einsum("nk,nkm->nm", pull, slopes)
            bend = counts[:, None] * pull * (2 * rest - 1)
            hessian += (score.T * counts) @ score - (flat.T * bend.ravel()) @ flat
            by_logits -= sign * counts[:, None] * pull
        return by_logits, hessian


class Likelihood:
    """The negative log-likelihood of the four cells' logits, on distinct rows.

    With e the share of wrong orders, P(preferred) of a cell with logit z is
    (1 - e) sigmoid(z) + e (1 - sigmoid(z of the mirrored cell)).
    """

    def __init__(self, cells: Tensor, outcomes: Tensor, order_error: float = 0.0) -> None:
        rows, place = torch.unique(cells, dim=0, return_inverse=True)
        self._mixture = Mixture.of(rows, order_error, place, outcomes)
        self._signs = np.vstack([np.eye(4), -_MIRRORED]) if order_error else np.eye(4)

    def value(self, logits: Array) -> float:
        """The negative log-likelihood."""
        return self._mixture.value(self._signs @ logits)

    def derivatives(self, logits: Array) -> tuple[Array, Array]:
        """Gradient [4] and Hessian [4, 4]."""
        shape = self._mixture.log_weights.shape
        slopes = np.broadcast_to(self._signs, (*shape, 4))
        by_logits, hessian = self._mixture.derivatives(np.broadcast_to(self._signs @ logits, shape), slopes)
        return by_logits.sum(0) @ self._signs, hessian


@dataclass(frozen=True)
class ConstantsLikelihood:
    """A likelihood of the cells' logits as one of (log 1/t, log b3, alpha)."""

    own: Likelihood

    def value(self, constants: Array) -> float:
        """The negative log-likelihood."""
        return self.own.value(FLAGS @ weights_of(constants))

    def derivatives(self, constants: Array) -> tuple[Array, Array]:
        """Gradient [3] and Hessian [3, 3]."""
        weights = weights_of(constants)
        steepness, b3 = math.exp(min(constants[0], 50)), math.exp(min(constants[1], 50))
        by_b3, by_alpha = np.array([steepness * b3, -steepness * b3, 0]), np.array([0, 0, -steepness])
        jacobian = FLAGS @ np.column_stack([weights, by_b3, by_alpha])
        gradient, hessian = self.own.derivatives(FLAGS @ weights)
        by_weights = gradient @ FLAGS
        along, across, offset = by_weights @ weights, by_weights @ by_b3, by_weights @ by_alpha
        bend = np.array([[along, across, offset], [across, across, 0], [offset, 0, 0]])
        return jacobian.T @ gradient, jacobian.T @ hessian @ jacobian + bend


@dataclass(frozen=True)
class Shrunk:
    """A negative log-posterior under a normal prior, up to a constant.

    Attributes:
        own: the negative log-likelihood of the constants.
        mean: [M] mean of the prior.
        precision: [M, M] its inverse covariance; 0 for what it says nothing about.
    """

    own: Smooth
    mean: Array
    precision: Array

    def value(self, constants: Array) -> float:
        """The negative log-posterior."""
        away = constants - self.mean
        return self.own.value(constants) + 0.5 * float(away @ self.precision @ away)

    def derivatives(self, constants: Array) -> tuple[Array, Array]:
        """Gradient [M] and Hessian [M, M]."""
        gradient, hessian = self.own.derivatives(constants)
        return gradient + self.precision @ (constants - self.mean), hessian + self.precision


def weights_of(constants: Array) -> Array:
    """The logistic weights (w1, w2, w0) of (log 1/t, log b3, alpha)."""
    # Capped, since a Newton step may otherwise overflow; such a point is far from the minimum.
    steepness, b3 = np.exp(np.minimum(constants[:2], 50))
    return steepness * np.array([1 + b3, -b3, -constants[2]])


def minimize(function: Smooth, directions: Array, start: Array | None = None, *, may_diverge: bool = False) -> Array:
    """Minimize over combinations of the columns of ``directions``, by a trust region.

    Args:
        function: the function. With uncertain flags the likelihood is a mixture's, whose curvature may be negative far
            from the minimum.
        directions: [M, D] directions.
        start: [D] coefficients to start from; by default 0.
        may_diverge: whether to stop where a constant exceeds 50, instead of raising an error.

    Returns:
        [M] the point.

    Raises:
        BfpoError: if there is no finite minimum, or it isn't found.
    """

    def is_far(at: Array) -> bool:
        return bool(np.abs(directions @ at).max() > _FAR)

    def stop(at: Array) -> None:
        if is_far(at):
            raise StopIteration

    found: Any = optimize.minimize(
        lambda at: function.value(directions @ at),
        np.zeros(directions.shape[1]) if start is None else start,
        method="trust-exact",
        jac=lambda at: directions.T @ function.derivatives(directions @ at)[0],
        hess=lambda at: directions.T @ function.derivatives(directions @ at)[1] @ directions,
        callback=stop,
        options={"gtol": 1e-9},
    )
    if is_far(found.x) and not may_diverge:
        raise BfpoError(
            "the overall judgments follow the flags without exception, so temperature and b1 have no finite best "
            "value: judge more pairs, including close calls"
        )
    # Rounding may end the search before its tolerance is reached.
    if not is_far(found.x) and not abs(found.jac @ np.linalg.lstsq(found.hess, found.jac)[0]) < _NEAR:
        raise BfpoError("the fit of the labeling function did not converge: judge more pairs")
    return directions @ found.x
