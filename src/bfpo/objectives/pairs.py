"""What the pairwise objectives share: log-ratio margins of pairs, and the mean over a group's pairs."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from bfpo.errors import BfpoError
from bfpo.groups import GroupLabels, GroupLogps

Reduction = Literal["sum", "mean"]


def checked_beta(beta: float | None, default: float, reduction: Reduction) -> float:
    """The beta to use: the given one, else the objective's default, which is meant for summed log-ratios.

    Raises:
        BfpoError: if beta is not positive and finite, or is left open although the log-ratios are averaged.
    """
    if reduction not in ("sum", "mean"):
        raise BfpoError(f"reduction must be 'sum' or 'mean', not {reduction!r}")
    if beta is None:
        if reduction == "mean":
            raise BfpoError(
                f"reduction 'mean' needs an explicit beta: the default {default} is meant for sums over "
                "tokens and would ask for far too much of every single token"
            )
        return default
    if not (math.isfinite(beta) and beta > 0):
        raise BfpoError(f"beta must be greater than 0, not {beta}: the default is {default}")
    return beta


def log_ratios(logps: GroupLogps, reduction: Reduction) -> Tensor:
    """[N] log(pi/pi_ref) of every answer, summed over its tokens or averaged over them."""
    if logps.reference is None:
        raise BfpoError("this objective needs reference log-probabilities: build them before training")
    ratios = logps.policy - logps.reference
    return ratios / logps.tokens if reduction == "mean" else ratios


def margins(logps: GroupLogps, labels: GroupLabels, reduction: Reduction) -> Tensor:
    """[P] h, the log-ratio of each pair's first answer less that of its second (IPO, arXiv 2310.12036)."""
    ratios = log_ratios(logps, reduction)
    return ratios[labels.first] - ratios[labels.second]


def mean_over_pairs(values: Tensor, labels: GroupLabels, group: Tensor) -> Tensor:
    """[G] mean of [P] pair values over each group's pairs.

    Raises:
        BfpoError: if a group has no pair, as a lone answer has none.
    """
    groups = int(group[-1]) + 1
    owner = group[labels.first]
    count = torch.zeros(groups, dtype=values.dtype, device=values.device).index_add(0, owner, torch.ones_like(values))
    if (count == 0).any():
        raise BfpoError("a pairwise objective needs at least two answers a prompt: train single answers with 'sft'")
    return torch.zeros_like(count).index_add(0, owner, values) / count
