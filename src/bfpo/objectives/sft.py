"""Supervised fine-tuning as an objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from bfpo.groups import GroupLabels, GroupLogps
from bfpo.objectives.traits import Traits


@dataclass(frozen=True)
class SFT(Traits):
    """Cross-entropy of the answers; a step's loss is the mean over the answer tokens of the global batch."""

    needs_reference: ClassVar[bool] = False
    normalizer: ClassVar[Literal["groups", "tokens"]] = "tokens"

    def rewards(self, logps: GroupLogps) -> None:
        """None: there is no reference."""

    def __call__(self, logps: GroupLogps, labels: GroupLabels) -> Tensor:
        """[G] negative log-probability of each group's answers, summed over their tokens, times its weight."""
        policy = logps.policy if labels.weight is None else logps.policy * labels.weight.to(logps.policy)
        return logps.summed(-policy)
