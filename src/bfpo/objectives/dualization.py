"""CAN: the multiplier of a constraint on costs, solved before training, and the order that it gives to pairs.

"One-Shot Safety Alignment via Optimal Dualization" (arXiv 2405.19544). MoCAN takes rewards and costs from models, PeCAN
from two DPO models' log-ratios; both then train DPO on the order of `constrained_order`, with the same beta.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, softmax

from bfpo.errors import BfpoError
from bfpo.objectives.pairwise import require

_LARGEST = 1e6
# Costs that are this close to the limit, relative to it, equal it but for rounding.
_ROUNDING = 1e-12


def constraint_multiplier(
    rewards: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], beta: float, limit: float
) -> float:
    """The multiplier with which the best policy at beta keeps its mean cost at or below a limit.

    That policy is pi_ref exp((reward - multiplier cost)/beta) / Z, estimated by weighting answers sampled from pi_ref.
    Its mean cost falls as the multiplier grows, and it equals the limit where the dual function (convex and smooth,
    arXiv 2405.19544, section 3) has its minimum.

    Args:
        rewards: rewards of the sampled answers, by prompt.
        costs: their costs, in the same order.
        beta: strength of the regularization toward pi_ref, > 0.
        limit: largest mean cost.

    Returns:
        The multiplier; 0 if the best policy keeps the limit without the constraint.

    Raises:
        BfpoError: if beta is not positive, a value is not finite, the two lists don't match, or the limit is not above
            the mean cost of the cheapest answers, which no multiplier reaches.
    """
    require(0 < beta < math.inf, "beta", "greater than 0", beta, "write that of the DPO runs")
    require(math.isfinite(limit), "limit", "a finite number", limit, "write the largest mean cost")
    if [len(one) for one in rewards] != [len(one) for one in costs] or not all(map(len, rewards)) or not rewards:
        raise BfpoError("rewards and costs must be lists with one value for each sampled answer of each prompt")
    for name, values in (("reward", rewards), ("cost", costs)):
        for prompt, one in enumerate(values):
            if not np.isfinite(one).all():
                raise BfpoError(f"the {name} of an answer to prompt {prompt + 1} is not finite: leave the prompt out")
    pairs = [(np.asarray(r, float), np.asarray(c, float)) for r, c in zip(rewards, costs, strict=True)]

    def excess(multiplier: float) -> float:
        means = [float(softmax((reward - multiplier * cost) / beta) @ cost) for reward, cost in pairs]
        return float(np.mean(means)) - limit

    rounding = _ROUNDING * max(1.0, abs(limit))
    if excess(0.0) <= rounding:
        return 0.0
    least = float(np.mean([cost.min() for _, cost in pairs]))
    if limit <= least + rounding or excess(_LARGEST) > 0:
        raise BfpoError(
            f"no policy over these answers keeps a mean cost of {limit:g}: their cheapest ones cost {least:g} on "
            "average, which is only approached; raise the limit, or sample more answers to each prompt"
        )
    root: Any = brentq(excess, 0.0, _LARGEST, xtol=1e-9)
    return float(root)


def constrained_order(rewards: tuple[float, float], costs: tuple[float, float], multiplier: float) -> float:
    """Probability that the first answer of a pair is the better one under a constraint: sigmoid(w - w').

    w = reward - multiplier cost. CAN draws the order from this probability; as ``chosen_is_better`` of a row for DPO it
    gives the mean loss over such draws.
    """
    first, second = (reward - multiplier * cost for reward, cost in zip(rewards, costs, strict=True))
    return float(expit(first - second))
