"""Bi-Factorial Preference Optimization (ICLR 2025, arXiv 2408.15313)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from bfpo.errors import BfpoError, did_you_mean
from bfpo.groups import GroupLabels, GroupLogps
from bfpo.objectives.global_preference import GlobalPreference, Probability, expected_target
from bfpo.objectives.pairs import Reduction, checked_beta, margins, mean_over_pairs
from bfpo.objectives.registry import objective

DEFAULT_BETA = 0.01
UnsafePairs = Literal["keep", "neutral", "drop"]


def bfpo_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    chosen_is_safe: Probability,
    rejected_is_safe: Probability,
    *,
    chosen_is_better: Probability = 1.0,
    beta: float = DEFAULT_BETA,
    labeling: GlobalPreference = GlobalPreference(),  # noqa: B008  (immutable)
) -> Tensor:
    """BFPO's loss of every pair, (h - T/beta)^2, where "chosen" is the more *helpful* answer.

    h = log[pi(chosen)/pi_ref(chosen)] - log[pi(rejected)/pi_ref(rejected)], summed over answer tokens; with
    probabilities in place of flags, the label is the expectation G (see `GlobalPreference.target`).

    Args:
        chosen_logps: [B] log-probability of the more helpful answer under the policy, in nats.
        rejected_logps: [B] the same of the less helpful answer.
        ref_chosen_logps: [B] log-probability of the more helpful answer under the reference.
        ref_rejected_logps: [B] the same of the less helpful answer.
        chosen_is_safe: [B] flag or probability that the more helpful answer is safe.
        rejected_is_safe: [B] the same of the less helpful answer.
        chosen_is_better: [B] or number, probability that the chosen answer is the more helpful one.
        beta: strength of the pull to the reference (tau in the paper), > 0.
        labeling: the labeling function.

    Returns:
        [B] loss of every pair.

    Raises:
        BfpoError: if beta is not positive.
    """
    beta = checked_beta(beta, DEFAULT_BETA, "sum")
    margin = (chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps)
    label = labeling.target(chosen_is_safe, rejected_is_safe, chosen_is_better)
    return _squared_distance(margin, label.to(margin), beta)


def _squared_distance(margin: Tensor, label: Tensor, beta: float) -> Tensor:
    return (margin - label / beta) ** 2


@objective("bfpo")
@dataclass(frozen=True)
class BFPO:
    """(h - G/beta)^2, averaged over a group's pairs.

    Attributes:
        beta: strength of the pull to the reference; 0.01 by default, must be given with reduction "mean".
        b1: see `GlobalPreference`.
        alpha: see `GlobalPreference`.
        reduction: sum or mean of the token log-ratios.
        unsafe_pairs: what a pair of two unsafe answers teaches: "keep" prefers the less helpful one
            (T = -alpha), "neutral" sets its target to 0, "drop" sets its weight to 0. With probabilities,
            "neutral" adds alpha (2p - 1)(1 - s_w)(1 - s_l) to G and "drop" weighs by 1 - (1 - s_w)(1 - s_l).
    """

    beta: float | None = None
    b1: float = GlobalPreference.b1
    alpha: float = GlobalPreference.alpha
    reduction: Reduction = "sum"
    unsafe_pairs: UnsafePairs = "keep"

    reads_safety: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = True
    normalizer: ClassVar[Literal["groups", "tokens"]] = "groups"

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", checked_beta(self.beta, DEFAULT_BETA, self.reduction))
        if self.unsafe_pairs not in get_args(UnsafePairs):
            raise BfpoError(
                f"unsafe_pairs must be 'keep', 'neutral' or 'drop', not {self.unsafe_pairs!r}"
                + did_you_mean(str(self.unsafe_pairs), get_args(UnsafePairs))
            )
        GlobalPreference(self.b1, self.alpha)

    def target(self, labels: GroupLabels) -> Tensor:
        """[P] the label G of every pair, by the pair's own b1 and alpha where it has them."""
        safe_first, safe_second = labels.is_safe[labels.first], labels.is_safe[labels.second]
        b1, alpha = _own_or(labels.b1, self.b1), _own_or(labels.alpha, self.alpha)
        label = expected_target(safe_first, safe_second, labels.first_is_better, b1, alpha)
        if self.unsafe_pairs == "neutral":
            label = label + alpha * (2 * labels.first_is_better - 1) * _both_unsafe(labels)
        return label

    def __call__(self, logps: GroupLogps, labels: GroupLabels) -> Tensor:
        """[G] mean over the group's pairs of (h - G/beta)^2."""
        assert self.beta is not None
        if torch.isnan(labels.is_safe).any():
            raise BfpoError(
                "BFPO reads the safety of every answer, and some are unknown: label them, or set the "
                "source's unknown_safety to a probability or to 'drop'"
            )
        margin = margins(logps, labels, self.reduction)
        loss = _squared_distance(margin, self.target(labels).to(margin), self.beta)
        if self.unsafe_pairs == "drop":
            loss = loss * (1 - _both_unsafe(labels))
        return mean_over_pairs(loss, labels, logps.group)


def _own_or(own: Tensor | None, common: float) -> Tensor | float:
    return common if own is None else torch.where(own.isnan(), common, own)


def _both_unsafe(labels: GroupLabels) -> Tensor:
    return (1 - labels.is_safe[labels.first]) * (1 - labels.is_safe[labels.second])
