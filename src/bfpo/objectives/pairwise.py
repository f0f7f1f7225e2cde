"""BFPO's nearest relatives, which read one preference only: DPO and IPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from bfpo.groups import GroupLabels, GroupLogps
from bfpo.objectives.pairs import Reduction, checked_beta, margins, mean_over_pairs
from bfpo.objectives.registry import objective

DEFAULT_BETA = 0.1


@objective("dpo")
@dataclass(frozen=True)
class DPO:
    """Direct Preference Optimization, -log sigmoid(beta h) (arXiv 2305.18290, equation 7).

    With a probability p that the first answer is better, the expectation: -p log sigmoid(beta h)
    - (1 - p) log sigmoid(-beta h), which is conservative DPO's form.
    """

    beta: float | None = None
    reduction: Reduction = "sum"

    reads_safety: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = True
    normalizer: ClassVar[Literal["groups", "tokens"]] = "groups"

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", checked_beta(self.beta, DEFAULT_BETA, self.reduction))

    def target(self, labels: GroupLabels) -> None:
        """None: the loss falls for ever as h grows."""

    def __call__(self, logps: GroupLogps, labels: GroupLabels) -> Tensor:
        """[G] mean over the group's pairs of the expected -log sigmoid(beta h)."""
        assert self.beta is not None
        scaled = self.beta * margins(logps, labels, self.reduction)
        p = labels.first_is_better.to(scaled)
        return mean_over_pairs(-p * logsigmoid(scaled) - (1 - p) * logsigmoid(-scaled), labels, logps.group)


@objective("ipo")
@dataclass(frozen=True)
class IPO:
    """Identity Preference Optimization, (h - (2p - 1)/(2 beta))^2 (arXiv 2310.12036, equation 17).

    The sum over tokens, as in the paper; TRL's ``loss_type="ipo"`` is ``reduction="mean"``.
    """

    beta: float | None = None
    reduction: Reduction = "sum"

    reads_safety: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = True
    normalizer: ClassVar[Literal["groups", "tokens"]] = "groups"

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", checked_beta(self.beta, DEFAULT_BETA, self.reduction))

    def target(self, labels: GroupLabels) -> Tensor:
        """[P] (2p - 1)/2, the same for every certain pair."""
        return labels.first_is_better - 0.5

    def __call__(self, logps: GroupLogps, labels: GroupLabels) -> Tensor:
        """[G] mean over the group's pairs of the squared distance to the target."""
        assert self.beta is not None
        margin = margins(logps, labels, self.reduction)
        return mean_over_pairs((margin - self.target(labels).to(margin) / self.beta) ** 2, labels, logps.group)
