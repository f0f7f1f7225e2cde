"""CAN: DPO on its order keeps the constraint, exactly, with a tabular policy."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from bfpo.errors import BfpoError
from bfpo.groups import GroupLabels, GroupLogps
from bfpo.objectives.dualization import constrained_order, constraint_multiplier
from bfpo.objectives.pairwise import DPO

REWARDS = [[2.0, 1.0, 0.0, -0.5], [0.3, 0.1, 0.9, 1.5]]
COSTS = [[1.0, 0.4, 0.0, 0.1], [0.0, 0.2, 0.3, 0.9]]
BETA, LIMIT = 0.5, 0.25


def trained(reward, cost, multiplier):
    """A policy over four equally likely answers, trained with DPO on all pairs in CAN's order."""
    pairs = list(itertools.combinations(range(4), 2))
    order = [constrained_order((reward[i], reward[j]), (cost[i], cost[j]), multiplier) for i, j in pairs]
    first, second = torch.tensor(pairs).T
    labels = GroupLabels(torch.ones(4), first, second, torch.tensor(order, dtype=torch.float64))
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    reference = torch.full((4,), 0.25, dtype=torch.float64).log()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=2000, tolerance_grad=1e-14, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        logps = GroupLogps(logits.log_softmax(0), reference, torch.ones(4), torch.zeros(4, dtype=torch.long))
        loss = DPO(beta=BETA)(logps, labels).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits.detach().softmax(0).numpy()


def test_dpo_on_the_order_keeps_the_limit():
    multiplier = constraint_multiplier(REWARDS, COSTS, BETA, LIMIT)
    policies = [trained(reward, cost, multiplier) for reward, cost in zip(REWARDS, COSTS, strict=True)]
    mean_cost = np.mean([policy @ cost for policy, cost in zip(policies, COSTS, strict=True)])
    assert mean_cost == pytest.approx(LIMIT, abs=1e-6)
    unconstrained = [trained(reward, cost, 0.0) @ cost for reward, cost in zip(REWARDS, COSTS, strict=True)]
    assert np.mean(unconstrained) > LIMIT + 0.1


def test_the_multiplier_is_the_minimum_of_the_dual_function():
    def dual(multiplier):
        values = [(np.array(r) - multiplier * np.array(c)) / BETA for r, c in zip(REWARDS, COSTS, strict=True)]
        return BETA * np.mean([logsumexp(value) for value in values]) + multiplier * LIMIT

    found = minimize_scalar(dual, bounds=(0, 50), method="bounded", options={"xatol": 1e-10}).x
    assert constraint_multiplier(REWARDS, COSTS, BETA, LIMIT) == pytest.approx(found, abs=1e-4)


def test_limits_that_always_or_never_hold():
    assert constraint_multiplier(REWARDS, COSTS, BETA, 5.0) == 0.0
    with pytest.raises(BfpoError, match="their cheapest ones cost 0 on average"):
        constraint_multiplier(REWARDS, COSTS, BETA, -0.1)
    with pytest.raises(BfpoError, match="one value for each sampled answer"):
        constraint_multiplier(REWARDS, COSTS[:1], BETA, LIMIT)


@pytest.mark.parametrize(
    ("rewards", "costs", "beta", "limit", "message"),
    [
        (REWARDS, COSTS, 0.0, LIMIT, "beta must be greater than 0"),
        (REWARDS, COSTS, math.nan, LIMIT, "beta must be greater than 0"),
        (REWARDS, COSTS, BETA, math.inf, "limit must be a finite number"),
        ([REWARDS[0], [0.1, math.nan, 1.0, 2.0]], COSTS, BETA, LIMIT, "the reward of an answer to prompt 2 is not"),
        (REWARDS, [[math.inf, 0.1, 0.2, 0.3], COSTS[1]], BETA, LIMIT, "the cost of an answer to prompt 1 is not"),
        # Only approached, as the multiplier grows.
        (REWARDS, COSTS, BETA, 0.0, "their cheapest ones cost 0 on average, which is only approached"),
    ],
)
def test_what_has_no_multiplier_is_refused(rewards, costs, beta, limit, message):
    with pytest.raises(BfpoError, match=message):
        constraint_multiplier(rewards, costs, beta, limit)


def test_equal_costs_at_the_limit_need_no_multiplier():
    costs = [[0.1 + 0.2] * 4, [0.1 + 0.2] * 4]
    assert constraint_multiplier(REWARDS, costs, BETA, 0.3) == 0.0
