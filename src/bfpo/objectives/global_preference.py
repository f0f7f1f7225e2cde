"""The global labeling function: two preferences, safety and helpfulness, folded into one label per pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bfpo.errors import BfpoError

if TYPE_CHECKING:
    from bfpo.objectives.preference_fit import PreferenceFit

Probability = Tensor | float | bool


@dataclass(frozen=True)
class GlobalPreference:
    """BFPO's labeling function T (ICLR 2025, arXiv 2408.15313) and its expectation G under uncertain labels.

    Attributes:
        b1: price of safety, > 1. A safe answer outranks an unsafe one of equal helpfulness by 1/(b1 - 1)
            plus its helpfulness: the smaller b1, the dearer is safety. The paper's value is 3.
        alpha: offset of the label. Only 1/2 treats the two flags alike: there, and for no other value,
            T(1 - s_w, 1 - s_l) = -T(s_w, s_l).

    Raises:
        BfpoError: if b1 <= 1 or either value is not finite.
    """

    b1: float = 3.0
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.b1) and self.b1 > 1):
            raise BfpoError(f"b1 must be greater than 1, not {self.b1}: choose for example the paper's b1 = 3")
        if not math.isfinite(self.alpha):
            raise BfpoError(f"alpha must be a finite number, not {self.alpha}: the paper's value is 0.5")

    @property
    def b3(self) -> float:
        """1/(b1 - 1), the weight of the less helpful answer's safety in T."""
        return 1 / (self.b1 - 1)

    def target(
        self,
        better_is_safe: Probability,
        worse_is_safe: Probability,
        better_probability: Probability = 1.0,
    ) -> Tensor:
        """The label of a pair: T for certain labels, its expectation G for probabilities.

        T(s_w, s_l) = b1 b3 s_w - b3 s_l - alpha, and with p the probability that the first answer is the more
        helpful one, G = p T(s_w, s_l) - (1 - p) T(s_l, s_w). T is affine in the flags, so probabilities may
        stand in their place; G is exact if the errors of the three labels are independent given the pair.

        Args:
            better_is_safe: probability (or flag) that the more helpful answer is safe, any shape.
            worse_is_safe: the same of the less helpful answer, broadcastable.
            better_probability: probability that the first answer is the more helpful one, broadcastable.

        Returns:
            The label, of the broadcast shape; what beta * h is regressed to.
        """
        return expected_target(better_is_safe, worse_is_safe, better_probability, self.b1, self.alpha)

    def reward(self, p_help: Probability, is_safe: Probability, mean_safe: Probability) -> Tensor:
        """The reward R(y) that the regression implies, up to a constant of the prompt.

        R(y) = (s(y) + E_s - 2 alpha)(p_help(y) + 1/(b1 - 1)), if safety and helpfulness are independent
        among the sampled answers; the minimiser of the loss is then pi_ref exp(R/beta) / Z.

        Args:
            p_help: probability that y is more helpful than another sampled answer (itself counts 1/2).
            is_safe: probability (or flag) that y is safe.
            mean_safe: E_s, mean safety of the sampled answers.
        """
        help_, safe, mean = _as_tensors(p_help, is_safe, mean_safe)
        return (safe + mean - 2 * self.alpha) * (help_ + self.b3)

    @classmethod
    def fit(
        cls,
        better_is_safe: Sequence[float] | Tensor,
        worse_is_safe: Sequence[float] | Tensor,
        overall_prefers_better: Sequence[float] | Tensor,
    ) -> PreferenceFit:
        """Learn b1 and alpha from overall judgements of pairs, by P(overall prefers the more helpful) = sigmoid(T/t).

        Args:
            better_is_safe: [N], flag or probability that the more helpful answer is safe.
            worse_is_safe: [N], the same of the less helpful answer.
            overall_prefers_better: [N], 1 where the more helpful answer was preferred overall, else 0; a probability
                counts as that share of a judgement.

        Returns:
            The fitted labeling function as ``.preference``, its temperature, covariance, intervals and test.

        Raises:
            BfpoError: if values are no probabilities, pairs are too few, their flags or judgements can't determine
                b1, alpha and the temperature, or safety gets no positive price.
        """
        from bfpo.objectives.preference_fit import fit_preference

        return fit_preference(better_is_safe, worse_is_safe, overall_prefers_better)


def expected_target(
    better_is_safe: Probability,
    worse_is_safe: Probability,
    better_probability: Probability,
    b1: Tensor | float,
    alpha: Tensor | float,
) -> Tensor:
    """`GlobalPreference.target` with constants that may differ from pair to pair.

    Args:
        better_is_safe: see `GlobalPreference.target`.
        worse_is_safe: see there.
        better_probability: see there.
        b1: a number > 1, or one for each pair.
        alpha: a number, or one for each pair.
    """
    better, worse, p = _as_tensors(better_is_safe, worse_is_safe, better_probability)
    b3 = 1 / (b1 - 1)

    def label(better_safe: Tensor, worse_safe: Tensor) -> Tensor:
        return b1 * b3 * better_safe - b3 * worse_safe - alpha

    return p * label(better, worse) - (1 - p) * label(worse, better)


def _as_tensors(*values: Probability) -> tuple[Tensor, ...]:
    """Flags and numbers beside tensors, in the floating dtype and on the device of the tensors among them."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    floating = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    dtype = floating[0] if floating else torch.get_default_dtype()
    for other in floating[1:]:
        dtype = torch.promote_types(dtype, other)
    device = tensors[0].device if tensors else None
    return tuple(torch.as_tensor(value, dtype=dtype, device=device) for value in values)
