"""Pairwise objectives that need no reference model: SimPO and ORPO."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from bfpo.groups import GroupLabels, GroupLogps
from bfpo.objectives.pairwise import logistic, require
from bfpo.objectives.traits import Traits


@dataclass(frozen=True)
class ReferenceFree(Traits):
    """What SimPO and ORPO have in common: they compare mean log-probabilities of tokens.

    Attributes:
        beta: factor of the difference (SimPO), or of the odds-ratio term (ORPO, lambda in its paper), > 0.
    """

    beta: float

    needs_reference: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "beta", "greater than 0", self.beta, f"the default is {type(self).beta}")

    def rewards(self, logps: GroupLogps) -> Tensor:
        """[N] beta times the mean log-probability of every answer's tokens."""
        return self.beta * logps.policy / logps.tokens


@dataclass(frozen=True)
class SimPO(ReferenceFree):
    """Simple Preference Optimization (arXiv 2405.14734, equation 6): -log sigmoid(beta d - gamma).

    d is the difference of the answers' mean log-probabilities per token.

    Attributes:
        beta: factor of d, > 0; the paper's is 2 to 10.
        simpo_gamma: gamma, the target margin of beta d (TRL's name).
    """

    beta: float = 2.0
    simpo_gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        gamma = self.simpo_gamma
        require(0 <= gamma < math.inf, "simpo_gamma", "at least 0", gamma, "0 means no target margin")

    def __call__(self, logps: GroupLogps, labels: GroupLabels) -> Tensor:
        """[G] mean over the group's pairs; the target margin belongs to whichever answer wins."""
        reward, p = self.rewards(logps), labels.first_is_better.to(logps.policy)
        difference = reward[labels.first] - reward[labels.second]
        won, lost = logsigmoid(difference - self.simpo_gamma), logsigmoid(-difference - self.simpo_gamma)
        return logps.mean_over_pairs(-p * won - (1 - p) * lost, labels)


@dataclass(frozen=True)
class ORPO(ReferenceFree):
    """Odds Ratio Preference Optimization (arXiv 2403.07691, equation 6): NLL of the better answer + beta * odds ratio.

    The NLL is the mean over the better answer's tokens. TRL's also counts the prompt's tokens.
    """

    beta: float = 0.1

    def __call__(self, logps: GroupLogps, labels: GroupLabels) -> Tensor:
        """[G] mean over the group's pairs of the expected loss."""
        mean, p = logps.policy / logps.tokens, labels.first_is_better.to(logps.policy)
        # log odds = log P - log(1 - P); expm1 is exact where P is near 1.
        odds = mean - (-mean.expm1()).clamp_min(1e-30).log()
        nll = -(p * mean[labels.first] + (1 - p) * mean[labels.second])
        return logps.mean_over_pairs(nll + self.beta * logistic(odds[labels.first] - odds[labels.second], p), labels)
