"""Pairwise objectives: their common base class, DPO and IPO."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import get_args

from torch import Tensor
from torch.nn.functional import logsigmoid

from bfpo.errors import BfpoError
from bfpo.groups import GroupLabels, GroupLogps, Reduction
from bfpo.objectives.traits import Traits


@dataclass(frozen=True)
class Pairwise(Traits, ABC):
    """Options of every objective that compares log-ratios to the reference within pairs.

    Attributes:
        beta: strength of the regularization toward the reference, > 0; the default is for summed log-ratios.
        reduction: whether an answer's token log-ratios are summed or averaged.
        level: gamma of the anchor gamma * (mean log-ratio of a group's answers)^2, which margins leave free.

    Raises:
        BfpoError: if a value is out of range.
    """

    beta: float = 0.1
    reduction: Reduction = "sum"
    level: float = 0.0

    def __post_init__(self) -> None:
        if self.reduction not in get_args(Reduction):
            raise BfpoError(f"reduction must be 'sum' or 'mean', not {self.reduction!r}")
        require(0 < self.beta < math.inf, "beta", "greater than 0", self.beta, f"the default is {type(self).beta}")
        require(0 <= self.level < math.inf, "level", "at least 0", self.level, "0 leaves the level free")

    def rewards(self, logps: GroupLogps) -> Tensor:
        """[N] implicit reward beta * log(pi/pi_ref) of every answer (arXiv 2305.18290, equation 5)."""
        return self.beta * logps.log_ratios(self.reduction)

    @abstractmethod
    def pair_losses(self, margin: Tensor, labels: GroupLabels) -> Tensor:
        """[P] loss of every pair from its [P] margin h."""

    def __call__(self, logps: GroupLogps, labels: GroupLabels) -> Tensor:
        """[G] mean loss over the group's pairs, and the anchor of its level."""
        if self.reads_safety:
            labels.refuse_unfit(type(self).__name__, self.needs_probabilities)
        values = self.pair_losses(logps.margins(labels, self.reduction), labels)
        return logps.mean_over_pairs(values, labels, self.level, self.reduction)


def require(holds: bool, option: str, range_: str, value: float, remedy: str) -> None:
    """Refuse an option's value unless it is in its range.

    Raises:
        BfpoError: if it isn't.
    """
    if not holds:
        raise BfpoError(f"{option} must be {range_}, not {value}: {remedy}")


def logistic(logits: Tensor, p: Tensor) -> Tensor:
    """Expected logistic loss, -p log sigmoid(x) - (1 - p) log sigmoid(-x), of pairs whose first answer wins with p."""
    p = p.to(logits)
    return -p * logsigmoid(logits) - (1 - p) * logsigmoid(-logits)


@dataclass(frozen=True)
class DPO(Pairwise):
    """Direct Preference Optimization, -log sigmoid(beta h) (arXiv 2305.18290, equation 7).

    If the first answer is better with probability p, the loss is the expectation, -p log sigmoid(beta h)
    - (1 - p) log sigmoid(-beta h). Conservative DPO (cDPO) has the same form: ``label_smoothing`` e turns every p into
    (1 - e)p + e(1 - p).

    Attributes:
        label_smoothing: assumed share of wrong orders, in [0, 1/2); 0 for DPO itself.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        e = self.label_smoothing
        require(0 <= e < 0.5, "label_smoothing", "in [0, 0.5)", e, "0 is DPO without smoothing")

    def pair_losses(self, margin: Tensor, labels: GroupLabels) -> Tensor:
        """[P] the expected -log sigmoid(beta h)."""
        e = self.label_smoothing
        return logistic(self.beta * margin, e + (1 - 2 * e) * labels.first_is_better)


@dataclass(frozen=True)
class IPO(Pairwise):
    """Identity Preference Optimization, (h - (2p - 1)/(2 beta))^2 (arXiv 2310.12036, equation 17).

    Log-ratios are summed over tokens, as in the paper; TRL's ``loss_type="ipo"`` is ``reduction="mean"``.
    """

    def target(self, labels: GroupLabels) -> Tensor:
        """[P] (2p - 1)/2, the same for every certain pair."""
        return labels.first_is_better - 0.5

    def pair_losses(self, margin: Tensor, labels: GroupLabels) -> Tensor:
        """[P] the squared distance to the target."""
        return (margin - self.target(labels).to(margin) / self.beta) ** 2
