"""BSO: safety alignment as matching of density ratios, by a Bregman divergence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bfpo.groups import GroupLabels
from bfpo.objectives.pairwise import Pairwise, require

# Beyond this |log R| the loss continues along its tangent, so that the gradient is neither infinite nor lost.
_LOG_RATIO = 30.0


@dataclass(frozen=True)
class BSO(Pairwise):
    """Bregman Safety Optimization (arXiv 2605.12339) with the scaled Basu power divergence.

    On SafeDPO's pairs, the safer answer first: log R = -(beta h + C (u_w - u_l)), where u is 1 for unsafe, and the loss
    is (lam R^(1 + lam) - (1 + lam) R^-lam + 1) / (s lam (1 + lam)). Pairs of two unsafe answers have the loss 0 but
    count in the mean. Beyond |log R| = 30 it continues along its tangent:
    clamping log R there would leave exactly the worst pairs without a gradient. With probabilities, the loss is the
    expectation over hard labels whose errors are independent.

    C lies outside of beta: at the paper's C = 30, the gradient of a pair whose unsafe answer loses is 1e14 times that
    of other pairs until beta h is near 30, so all but those pairs are lost in the step. Smaller values keep both.

    Attributes:
        unsafe_cost: C, the cost of an unsafe answer in units of beta h.
        bregman_lambda: lam, in (0, 1]; beyond, R^(1 + lam) overflows.
        bregman_scale: s, > 0, divides the loss.
    """

    unsafe_cost: float = 30.0
    bregman_lambda: float = 0.2
    bregman_scale: float = 4.0

    reads_safety: ClassVar[bool] = True
    needs_probabilities: ClassVar[bool] = True  # the loss multiplies the two flags

    def __post_init__(self) -> None:
        super().__post_init__()
        cost, lam, scale = self.unsafe_cost, self.bregman_lambda, self.bregman_scale
        require(0 <= cost < math.inf, "unsafe_cost", "at least 0", cost, "the paper's value is 30")
        require(0 < lam <= 1, "bregman_lambda", "in (0, 1]", lam, "the paper's value is 0.2")
        require(0 < scale < math.inf, "bregman_scale", "greater than 0", scale, "the paper's value is 4")

    def pair_losses(self, margin: Tensor, labels: GroupLabels) -> Tensor:
        """[P] the expected loss over the cells SS, SU and US, and over the order where both are safe."""
        x, cost = self.beta * margin, self.unsafe_cost
        p = labels.first_is_better.to(x)
        first, second = labels.is_safe[labels.first].to(x), labels.is_safe[labels.second].to(x)
        both = first * second * (p * self._divergence(-x) + (1 - p) * self._divergence(x))
        only_first = first * (1 - second) * self._divergence(cost - x)
        only_second = (1 - first) * second * self._divergence(cost + x)
        return both + only_first + only_second

    def _divergence(self, log_ratio: Tensor) -> Tensor:
        """The loss of a log R, and its tangent beyond the last value that is computed."""
        lam, inside = self.bregman_lambda, log_ratio.clamp(-_LOG_RATIO, _LOG_RATIO)
        grown, shrunk = ((1 + lam) * inside).exp(), (-lam * inside).exp()
        value = (lam * grown - (1 + lam) * shrunk + 1) / (self.bregman_scale * lam * (1 + lam))
        slope = (grown + shrunk).detach() / self.bregman_scale
        return value + slope * (log_ratio - inside)
