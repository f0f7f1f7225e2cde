"""Bi-Factorial Preference Optimization (ICLR 2025, arXiv 2408.15313): labeling function, loss and objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from torch import Tensor

from bfpo.errors import BfpoError, did_you_mean
from bfpo.groups import GroupLabels, GroupLogps
from bfpo.objectives.pairwise import Pairwise

if TYPE_CHECKING:
    from bfpo.objectives.preference_fit import PreferenceFit

Probability = Tensor | float | bool
UnsafePairs = Literal["keep", "neutral", "drop"]


@dataclass(frozen=True)
class GlobalPreference:
    """BFPO's labeling function T (ICLR 2025, arXiv 2408.15313) and its expectation G under uncertain labels.

    Its price of harm, b3, is the same for all harm; `bfpo.preferences.harm.HarmPrices` has one for each category.

    Attributes:
        b1: weight of safety, > 1. A safe answer outranks an unsafe one of equal helpfulness by 1/(b1 - 1)
            plus its helpfulness: the smaller b1, the more safety counts. The paper's value is 3.
        alpha: offset of the label. Only 1/2 treats the two flags symmetrically:
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

    @property
    def refusal_threshold(self) -> float:
        """(1 - alpha)/(1 + b3): share of harm among prompts that look alike from which on they are refused."""
        return (1 - self.alpha) / (1 + self.b3)

    def target(
        self,
        better_is_safe: Probability,
        worse_is_safe: Probability,
        better_probability: Probability = 1.0,
    ) -> Tensor:
        """The label of a pair: T for certain labels, its expectation G for probabilities.

        T(s_w, s_l) = b1 b3 s_w - b3 s_l - alpha, and with p the probability that the first answer is the more
        helpful one, G = p T(s_w, s_l) - (1 - p) T(s_l, s_w). T is affine in the flags, so they may be
        probabilities; G is exact if the errors of the three labels are independent given the pair.

        Args:
            better_is_safe: probability (or flag) that the more helpful answer is safe, any shape.
            worse_is_safe: the same for the less helpful answer, broadcastable.
            better_probability: probability that the first answer is the more helpful one, broadcastable.

        Returns:
            The label, of the broadcast shape: the regression target of beta * h.
        """
        better, worse, p = _as_tensors(better_is_safe, worse_is_safe, better_probability)
        return _expected_label(better, worse, p, self.alpha, self.b3 * (better - worse))

    def reward(self, p_help: Probability, is_safe: Probability, mean_safe: Probability) -> Tensor:
        """The reward R(y) that the regression implies, up to a constant of the prompt.

        R(y) = (s(y) + E_s - 2 alpha)(p_help(y) + 1/(b1 - 1)), if safety and helpfulness are independent
        among the sampled answers; the minimizer of the loss is then pi_ref exp(R/beta) / Z.

        Args:
            p_help: probability that y is more helpful than a sampled answer (1/2 against itself).
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
        """Learn b1 and alpha from overall judgments of pairs, by P(overall prefers the more helpful) = sigmoid(T/t).

        For arguments and errors see `bfpo.objectives.preference_fit.fit_preference`.
        """
        from bfpo.objectives.preference_fit import fit_preference

        return fit_preference(better_is_safe, worse_is_safe, overall_prefers_better)


@dataclass(frozen=True)
class BFPO(Pairwise):
    """(h - G/beta)^2, averaged over a group's pairs.

    Attributes:
        beta: strength of the regularization toward the reference (tau in the paper).
        b1: see `GlobalPreference`.
        alpha: see `GlobalPreference`.
        unsafe_pairs: treatment of pairs of two unsafe answers: "keep" prefers the less helpful one (T = -alpha),
            "neutral" sets the target to 0 (the difference of the costs, if answers have them), "drop" sets the weight
            to 0 (and takes no costs). With probabilities, and w = 1 - (1 - s_w)(1 - s_l) for the chance that an answer
            is safe, "neutral" has alpha w in place of alpha, and "drop" that target divided by w, and weight w: the
            expected gradient if the two flags' errors are independent.
    """

    beta: float = 0.01
    b1: float = GlobalPreference.b1
    alpha: float = GlobalPreference.alpha
    unsafe_pairs: UnsafePairs = "keep"

    reads_safety: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unsafe_pairs not in get_args(UnsafePairs):
            raise BfpoError(
                f"unsafe_pairs must be 'keep', 'neutral' or 'drop', not {self.unsafe_pairs!r}"
                + did_you_mean(str(self.unsafe_pairs), get_args(UnsafePairs))
            )
        GlobalPreference(self.b1, self.alpha)

    @property
    def needs_probabilities(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the loss multiplies flags with each other, so that unbiased flags outside [0, 1] would bias it."""
        return self.unsafe_pairs != "keep"

    def target(self, labels: GroupLabels) -> Tensor:
        """[P] the label G of every pair, with the costs of its answers if they have them."""
        first, second = labels.first, labels.second
        cost = (1 - labels.is_safe) / (self.b1 - 1) if labels.cost is None else self._priced(labels, labels.cost)
        one_safe = _one_is_safe(labels)
        label = _expected_label(
            labels.is_safe[first],
            labels.is_safe[second],
            labels.first_is_better,
            self.alpha if self.unsafe_pairs == "keep" else self.alpha * one_safe,
            cost[second] - cost[first],
        )
        # Where both are unsafe for certain, the weight is 0.
        return label / one_safe.where(one_safe > 0, 1) if self.unsafe_pairs == "drop" else label

    def _priced(self, labels: GroupLabels, cost: Tensor) -> Tensor:
        """The costs, unless one is unknown or pairs that they tell apart are dropped."""
        if self.unsafe_pairs == "drop":
            raise BfpoError(
                "unsafe_pairs 'drop' would drop pairs that costs of harm tell apart: use 'keep' or 'neutral'"
            )
        if not labels.is_checked and torch.isnan(cost).any():
            raise BfpoError("BFPO needs the cost of every answer where some have one: price the harm of all sources")
        return cost

    def pair_losses(self, margin: Tensor, labels: GroupLabels) -> Tensor:
        """[P] (h - G/beta)^2, times the weight of the pair where unsafe ones are dropped."""
        loss = (margin - self.target(labels).to(margin) / self.beta) ** 2
        return loss * _one_is_safe(labels).to(loss) if self.unsafe_pairs == "drop" else loss

    def __call__(self, logps: GroupLogps, labels: GroupLabels) -> Tensor:
        """[G] mean over the group's pairs, as `Pairwise` takes it; here, so that a step's way ends in this file."""
        labels.refuse_unfit(f"BFPO with unsafe_pairs {self.unsafe_pairs!r}", self.needs_probabilities)
        losses = self.pair_losses(logps.margins(labels, self.reduction), labels)
        return logps.mean_over_pairs(losses, labels, self.level, self.reduction)


def _one_is_safe(labels: GroupLabels) -> Tensor:
    """[P] probability that at least one answer of each pair is safe; free of rounding near 0."""
    first, second = labels.is_safe[labels.first], labels.is_safe[labels.second]
    return first + second - first * second


def _expected_label(
    first_is_safe: Tensor, second_is_safe: Tensor, p: Tensor, alpha: Tensor | float, saved: Tensor
) -> Tensor:
    """G = (2p - 1)((s + s')/2 - alpha) + (s - s')/2 + c' - c; ``saved`` is c' - c, what the first answer costs less.

    With c = b3 (1 - s) this is p T(s, s') - (1 - p) T(s', s), the expectation of `GlobalPreference.target`.
    """
    mean, difference = (first_is_safe + second_is_safe) / 2, first_is_safe - second_is_safe
    return (2 * p - 1) * (mean - alpha) + difference / 2 + saved


def _as_tensors(*values: Probability) -> tuple[Tensor, ...]:
    """Convert values to tensors, with the floating dtype and the device of the tensors among them."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    floating = [tensor.dtype for tensor in tensors if tensor.is_floating_point()] or [torch.get_default_dtype()]
    dtype = reduce(torch.promote_types, floating)
    device = tensors[0].device if tensors else None
    return tuple(torch.as_tensor(value, dtype=dtype, device=device) for value in values)
