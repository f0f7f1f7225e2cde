"""MODPO: DPO on one factor with a margin from the reward of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bfpo.errors import BfpoError
from bfpo.groups import GroupLabels
from bfpo.objectives.pairwise import Pairwise, logistic, require


@dataclass(frozen=True)
class MODPO(Pairwise):
    """Multi-Objective DPO, -log sigmoid((beta h - (1 - w) m)/w) (arXiv 2310.03708).

    m is the difference of the two answers in another objective's reward, which the rows have as ``chosen_reward`` and
    ``rejected_reward`` (K answers: ``reward``). The optimum maximizes w r + (1 - w) reward, where r is the reward whose
    order the pairs have.

    Attributes:
        preference_weight: w, the weight of the preference against the other reward, in (0, 1]; at 1 it is DPO.
    """

    preference_weight: float = 0.5

    reads_reward: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        weight = self.preference_weight
        require(0 < weight <= 1, "preference_weight", "in (0, 1]", weight, "1 is DPO on the order alone")

    def pair_losses(self, margin: Tensor, labels: GroupLabels) -> Tensor:
        """[P] the expected logistic loss of the margin that is left to the order."""
        if labels.reward is None:
            raise BfpoError(
                "MODPO needs the reward of every answer: add the columns chosen_reward and rejected_reward (or reward)"
            )
        reward = labels.reward[labels.first] - labels.reward[labels.second]
        weight = self.preference_weight
        return logistic((self.beta * margin - (1 - weight) * reward.to(margin)) / weight, labels.first_is_better)
