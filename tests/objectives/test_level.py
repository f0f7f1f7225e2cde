"""The level anchor: it keeps the optimum's margins and puts the level at 0, if a prompt's answers are one group."""

import itertools

import pytest
import torch

from bfpo.errors import BfpoError
from bfpo.groups import GroupLabels, GroupLogps
from bfpo.objectives.registry import build_objective

PAIRS = list(itertools.combinations(range(4), 2))
# Of BFPO: flags and orders; the orders are no Bradley-Terry model's, so the margins are a compromise.
SAFE = torch.tensor([0.9, 0.1, 0.7, 0.6], dtype=torch.float64)
P = torch.tensor([0.9, 0.2, 0.6, 0.7, 0.5, 0.3], dtype=torch.float64)
# Four answers with a billionth of the reference's mass, and unseen text that takes up the rest.
REFERENCE = torch.tensor([1e-9, 3e-9, 5e-10, 2e-9, 1 - 6.5e-9], dtype=torch.float64).log()


def trained(objective, separate=False):
    """[4] log-ratios after training a tabular policy on all pairs, in one group or in a group for each pair."""
    first, second = torch.tensor(PAIRS).T
    answers, group = torch.arange(4), torch.zeros(4, dtype=torch.long)
    if separate:
        answers, group = torch.tensor(PAIRS).flatten(), torch.arange(6).repeat_interleave(2)
        first, second = torch.arange(0, 12, 2), torch.arange(1, 12, 2)
    labels = GroupLabels(SAFE[answers], first, second, P)
    logits = REFERENCE.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=5000, tolerance_grad=1e-15, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        logps = GroupLogps(logits.log_softmax(0)[answers], REFERENCE[answers], torch.ones(len(answers)), group)
        loss = objective(logps, labels).sum()
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    return (logits.log_softmax(0) - REFERENCE).detach()[:4]


def margins(ratios):
    first, second = torch.tensor(PAIRS).T
    return ratios[first] - ratios[second]


@pytest.mark.parametrize("gamma", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("name", ["bfpo", "ipo", "dpo", "safedpo", "modpo"])
def test_margins_are_kept_and_the_level_is_zero(name, gamma):
    options = {"beta": 0.5} | ({"safety_margin": 2.0} if name == "safedpo" else {})
    free = trained(with_rewards(build_objective(name, options)))
    anchored = trained(with_rewards(build_objective(name, options | {"level": gamma})))
    torch.testing.assert_close(margins(anchored), margins(free), rtol=0, atol=1e-6)
    assert anchored.mean().item() == pytest.approx(0, abs=1e-6)


def with_rewards(objective):
    """The objective with rewards, for the one that reads them."""

    def call(logps, labels):
        reward = torch.tensor([0.2, 0.5, -0.3, 0.1])
        return objective(logps, GroupLabels(labels.is_safe, labels.first, labels.second, P, reward=reward))

    return call


def test_anchors_of_separate_pairs_disagree():
    """IPO's targets r_i - r_j with all pairs of K answers apart: margins shrink by 4K/(4K + gamma (K - 2)), so a margin
    of 10 becomes 8.89 with gamma 1; a single pair is kept."""
    free = margins(trained(build_objective("ipo", {"beta": 0.5})))
    apart = margins(trained(build_objective("ipo", {"beta": 0.5, "level": 1.0}), separate=True))
    torch.testing.assert_close(apart, free * 16 / 18, rtol=0, atol=1e-6)
    assert free.abs().max() > 0.1


def test_the_anchor_is_weighted_like_its_group():
    logps = GroupLogps(
        torch.tensor([-3.0, -5.0, -4.0], dtype=torch.float64), torch.tensor([-4.0, -4.5, -4.0], dtype=torch.float64),
        torch.tensor([2, 2, 2]), torch.tensor([0, 0, 0]),
    )  # fmt: skip
    weight = torch.full((3,), 2.0)
    labels = GroupLabels(torch.ones(3), torch.tensor([0]), torch.tensor([1]), torch.ones(1), weight=weight)
    objective = build_objective("ipo", {"beta": 0.5, "level": 3.0})
    # Log-ratios 1, -.5 and 0: margin 1.5, target 1, level 1/6.
    assert logps.levels().item() == pytest.approx(1 / 6)
    assert objective(logps, labels).item() == pytest.approx(2 * (0.25 + 3 / 36))
    halved = build_objective("ipo", {"beta": 0.5, "level": 3.0, "reduction": "mean"})
    assert halved(logps, labels).item() == pytest.approx(2 * ((0.75 - 1) ** 2 + 3 / 144))


@pytest.mark.parametrize("gamma", [-1.0, float("nan"), float("inf")])
def test_the_anchor_must_not_be_negative(gamma):
    with pytest.raises(BfpoError, match="level must be at least 0"):
        build_objective("bfpo", {"level": gamma})
    with pytest.raises(BfpoError, match="does not read the option 'level'"):
        build_objective("simpo", {"level": 1.0})
