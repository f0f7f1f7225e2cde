"""Robust DPO: the logistic loss made unbiased under a known share of wrong orders."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bfpo.groups import GroupLabels
from bfpo.objectives.pairwise import Pairwise, logistic, require


@dataclass(frozen=True)
class RobustDPO(Pairwise):
    """rDPO, ((1 - e) l(h) - e l(-h)) / (1 - 2e) with DPO's l (arXiv 2403.00409; TRL's "robust").

    It is DPO on the unbiased order p~ = (p - e)/(1 - 2e), which leaves [0, 1]: over orders that are wrong with
    probability e its mean is DPO's loss on the right ones. The loss of a single pair is unbounded below: it falls by
    beta e/(1 - 2e) with every nat by which a large margin grows.

    Attributes:
        label_smoothing: e, the share of wrong orders, in (0, 1/2).
    """

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        e = self.label_smoothing
        require(0 < e < 0.5, "label_smoothing", "in (0, 0.5)", e, "use 'dpo' for orders without errors")

    def pair_losses(self, margin: Tensor, labels: GroupLabels) -> Tensor:
        """[P] DPO's loss on the unbiased order."""
        e = self.label_smoothing
        return logistic(self.beta * margin, (labels.first_is_better - e) / (1 - 2 * e))
