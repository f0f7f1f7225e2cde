"""BFPO's loss of pairs as a plain function of tensors, for use in other training code."""

from __future__ import annotations

from torch import Tensor

from bfpo.objectives.bfpo import BFPO, GlobalPreference, Probability

_PAPER = GlobalPreference()


def bfpo_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    chosen_is_safe: Probability,
    rejected_is_safe: Probability,
    *,
    chosen_is_better: Probability = 1.0,
    beta: float = BFPO.beta,
    labeling: GlobalPreference = _PAPER,
) -> Tensor:
    """BFPO's loss of every pair, (h - T/beta)^2, where "chosen" is the more *helpful* answer.

    h = log[pi(chosen)/pi_ref(chosen)] - log[pi(rejected)/pi_ref(rejected)], summed over answer tokens. If flags
    are probabilities, the label is the expectation G (see `GlobalPreference.target`).

    Args:
        chosen_logps: [B] log-probability of the more helpful answer under the policy, in nats.
        rejected_logps: [B] the same for the less helpful answer.
        ref_chosen_logps: [B] log-probability of the more helpful answer under the reference.
        ref_rejected_logps: [B] the same for the less helpful answer.
        chosen_is_safe: [B] flag or probability that the more helpful answer is safe.
        rejected_is_safe: [B] the same for the less helpful answer.
        chosen_is_better: [B] or number, probability that the chosen answer is the more helpful one.
        beta: strength of the regularization toward the reference (tau in the paper), > 0.
        labeling: the labeling function.

    Returns:
        [B] loss of every pair.

    Raises:
        BfpoError: if beta is not positive.
    """
    BFPO(beta=beta)  # refuses a beta that is out of range
    margin = (chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps)
    label = labeling.target(chosen_is_safe, rejected_is_safe, chosen_is_better)
    return (margin - label.to(margin) / beta) ** 2
