"""SafeDPO: DPO on the safe-first order without pairs of two unsafe answers, with a margin for safety."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from bfpo.groups import GroupLabels
from bfpo.objectives.pairwise import Pairwise, logistic, require


@dataclass(frozen=True)
class SafeDPO(Pairwise):
    """-log sigmoid(beta h - (u_l - u_w) Delta), the safer answer first (arXiv 2505.20065); u is 1 for unsafe.

    Pairs of two unsafe answers have the loss 0 but count in the mean. With probabilities, the loss is the expectation
    over hard labels whose errors are independent.

    Attributes:
        safety_margin: Delta, by which beta h of a safe answer over an unsafe one must exceed that of other pairs.
    """

    safety_margin: float = 10.0

    reads_safety: ClassVar[bool] = True
    needs_probabilities: ClassVar[bool] = True  # the loss multiplies the two flags

    def __post_init__(self) -> None:
        super().__post_init__()
        margin = self.safety_margin
        require(0 <= margin < math.inf, "safety_margin", "at least 0", margin, "the paper's value is 10")

    def pair_losses(self, margin: Tensor, labels: GroupLabels) -> Tensor:
        """[P] the expected loss over the cells SS, SU and US."""
        x = self.beta * margin
        first, second = labels.is_safe[labels.first].to(x), labels.is_safe[labels.second].to(x)
        both = first * second * logistic(x, labels.first_is_better)
        only_first = first * (1 - second) * logsigmoid(x - self.safety_margin)
        only_second = (1 - first) * second * logsigmoid(-x - self.safety_margin)
        return both - only_first - only_second
