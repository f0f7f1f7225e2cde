"""Pairwise objectives: their common base class, DPO and IPO."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor
from torch.nn.functional import logsigmoid

from bfpo.errors import BfpoError
from bfpo.groups import GroupLabels, GroupLogps, Reduction


@dataclass(frozen=True)
class Pairwise:
    """Options of every objective that compares log-ratios to the reference within pairs.

    Attributes:
        beta: strength of the regularization toward the reference, > 0; the default is for summed log-ratios.
        reduction: whether an answer's token log-ratios are summed or averaged.

    Raises:
        BfpoError: if a value is out of range.
    """

    beta: float = 0.1
    reduction: Reduction = "sum"

    reads_safety: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = True
    normalizer: ClassVar[Literal["groups", "tokens"]] = "groups"

    def __post_init__(self) -> None:
        if self.reduction not in get_args(Reduction):
            raise BfpoError(f"reduction must be 'sum' or 'mean', not {self.reduction!r}")
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise BfpoError(f"beta must be greater than 0, not {self.beta}: the default is {type(self).beta}")

    @property
    def needs_probabilities(self) -> bool:
        """Whether the loss refuses flags and orders outside [0, 1]."""
        return False

    def rewards(self, logps: GroupLogps) -> Tensor:
        """[N] implicit reward beta * log(pi/pi_ref) of every answer (arXiv 2305.18290, equation 5)."""
        return self.beta * logps.log_ratios(self.reduction)


@dataclass(frozen=True)
class DPO(Pairwise):
    """Direct Preference Optimization, -log sigmoid(beta h) (arXiv 2305.18290, equation 7).

    If the first answer is better with probability p, the loss is the expectation, -p log sigmoid(beta h)
    - (1 - p) log sigmoid(-beta h), as in conservative DPO.
    """

    def target(self, labels: GroupLabels) -> None:
        """None: the loss decreases in h without a minimum."""

    def __call__(self, logps: GroupLogps, labels: GroupLabels) -> Tensor:
        """[G] mean over the group's pairs of the expected -log sigmoid(beta h)."""
        scaled = self.beta * logps.margins(labels, self.reduction)
        p = labels.first_is_better.to(scaled)
        return logps.mean_over_pairs(-p * logsigmoid(scaled) - (1 - p) * logsigmoid(-scaled), labels)


@dataclass(frozen=True)
class IPO(Pairwise):
    """Identity Preference Optimization, (h - (2p - 1)/(2 beta))^2 (arXiv 2310.12036, equation 17).

    Log-ratios are summed over tokens, as in the paper; TRL's ``loss_type="ipo"`` is ``reduction="mean"``.
    """

    def target(self, labels: GroupLabels) -> Tensor:
        """[P] (2p - 1)/2, the same for every certain pair."""
        return labels.first_is_better - 0.5

    def __call__(self, logps: GroupLogps, labels: GroupLabels) -> Tensor:
        """[G] mean over the group's pairs of the squared distance to the target."""
        margin = logps.margins(labels, self.reduction)
        return logps.mean_over_pairs((margin - self.target(labels).to(margin) / self.beta) ** 2, labels)
