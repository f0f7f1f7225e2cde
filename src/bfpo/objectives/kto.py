"""KTO: each answer is compared with an estimate of the KL divergence, not with the other answer of its pair."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bfpo.errors import BfpoError
from bfpo.groups import GroupLabels, GroupLogps
from bfpo.objectives.pairwise import require
from bfpo.objectives.traits import Traits


@dataclass(frozen=True)
class KTO(Traits):
    """Kahneman-Tversky Optimization (arXiv 2402.01306, equation 7), on the two answers of every pair.

    With rho the log-ratio to the reference, the better answer of a pair has the loss lam_D (1 - sigmoid(beta (rho -
    z0))), the other one lam_U (1 - sigmoid(beta (z0 - rho))), and a pair has their mean; if the first is better with
    probability p, the expectation. z0 is max(0, the mean log-ratio of answers to other prompts), over all groups of a
    step and without a gradient; the trainer estimates it (`bfpo.training.mismatched`).

    Attributes:
        beta: strength of the regularization toward the reference, > 0.
        desirable_weight: weight of a desirable answer's loss, lam_D.
        undesirable_weight: weight of an undesirable answer's loss, lam_U.
    """

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    estimates_kl: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "beta", "greater than 0", self.beta, "the default is 0.1")
        for name in ("desirable_weight", "undesirable_weight"):
            weight = getattr(self, name)
            require(0 < weight < math.inf, name, "greater than 0", weight, "the default is 1")

    def rewards(self, logps: GroupLogps) -> Tensor:
        """[N] implicit reward beta * log(pi/pi_ref) of every answer."""
        return self.beta * logps.log_ratios()

    def __call__(self, logps: GroupLogps, labels: GroupLabels, kl: float | None = None) -> Tensor:
        """[G] mean over the group's pairs of the mean loss of their two answers.

        Args:
            logps: log-probabilities, with their reference.
            labels: the labels.
            kl: z0, in nats.

        Raises:
            BfpoError: if ``kl`` is None.
        """
        if kl is None:
            raise BfpoError("KTO needs kl, the mean log-ratio of answers to other prompts (0 if it is negative)")
        # 1 - sigmoid(x) = sigmoid(-x).
        distance = self.beta * (logps.log_ratios() - kl)
        desirable = self.desirable_weight * (-distance).sigmoid()
        undesirable = self.undesirable_weight * distance.sigmoid()
        p, first, second = labels.first_is_better.to(distance), labels.first, labels.second
        first_wins, second_wins = desirable[first] + undesirable[second], desirable[second] + undesirable[first]
        return logps.mean_over_pairs((p * first_wins + (1 - p) * second_wins) / 2, labels)
