"""The rivals against their formulas in numpy, against TRL where it has them, and as expectations over hard labels."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bfpo.errors import BfpoError
from bfpo.groups import GroupLabels, GroupLogps
from bfpo.objectives.registry import build_objective

# Log-probabilities of two answers of 3 and 5 tokens, so h = (-7 + 8) - (-9.5 + 9) = 1.5.
POLICY, REFERENCE, TOKENS = (-7.0, -9.5), (-8.0, -9.0), (3, 5)
H = 1.5
probabilities, margins = st.floats(0, 1), st.floats(-60, 60)


def pair(policy=POLICY, reference=REFERENCE, safe=(1.0, 0.0), p=1.0, reward=None, dtype=torch.float64):
    logps = GroupLogps(
        torch.tensor(policy, dtype=dtype), torch.tensor(reference, dtype=dtype), torch.tensor(TOKENS),
        torch.zeros(2, dtype=torch.long),
    )  # fmt: skip
    labels = GroupLabels(
        torch.tensor(safe, dtype=dtype), torch.tensor([0]), torch.tensor([1]), torch.tensor([p], dtype=dtype),
        reward=None if reward is None else torch.tensor(reward, dtype=dtype),
    )  # fmt: skip
    return logps, labels


def loss(name, options=None, **changes):
    return build_objective(name, options or {})(*pair(**changes)).item()


def softplus(x):
    return np.logaddexp(0, x)


def test_conservative_dpo_by_hand():
    by_hand = 0.9 * softplus(-0.2 * H) + 0.1 * softplus(0.2 * H)
    assert loss("dpo", {"beta": 0.2, "label_smoothing": 0.1}) == pytest.approx(by_hand, rel=1e-12)
    # Smoothing an order is an order of .9.
    assert loss("dpo", {"beta": 0.2}, p=0.9) == pytest.approx(by_hand, rel=1e-12)
    soft = loss("dpo", {"beta": 0.2, "label_smoothing": 0.1}, p=0.7)
    assert soft == pytest.approx(loss("dpo", {"beta": 0.2}, p=0.9 * 0.7 + 0.1 * 0.3), rel=1e-12)


def test_robust_dpo_by_hand():
    by_hand = (0.8 * softplus(-0.2 * H) - 0.2 * softplus(0.2 * H)) / 0.6
    assert loss("rdpo", {"beta": 0.2, "label_smoothing": 0.2}) == pytest.approx(by_hand, rel=1e-12)


@given(margins, probabilities, st.floats(0.01, 0.45))
def test_robust_dpo_is_dpo_without_the_errors(h, p, e):
    """Over orders that are wrong with probability e, its mean is DPO's loss on the right order."""
    robust = [loss("rdpo", {"label_smoothing": e}, policy=(h, 0.0), reference=(0.0, 0.0), p=o) for o in (1.0, 0.0)]
    first = p * (1 - e) + (1 - p) * e
    clean = loss("dpo", policy=(h, 0.0), reference=(0.0, 0.0), p=p)
    assert first * robust[0] + (1 - first) * robust[1] == pytest.approx(clean, rel=1e-9, abs=1e-9)
    unbiased = loss("dpo", policy=(h, 0.0), reference=(0.0, 0.0), p=(1 - e) / (1 - 2 * e))
    assert unbiased == pytest.approx(robust[0], rel=1e-9, abs=1e-9)


def test_robust_dpo_has_no_minimum():
    """From a margin of 1,000 nats to 2,000, the loss falls by beta e/(1 - 2e) 1,000 = 12.5 at e = .1."""
    near, far = (loss("rdpo", policy=(h, 0.0), reference=(0.0, 0.0)) for h in (1000.0, 2000.0))
    assert near - far == pytest.approx(12.5)


def test_simpo_by_hand():
    difference = 2.0 * (-7 / 3 + 9.5 / 5)
    assert loss("simpo") == pytest.approx(softplus(-(difference - 1.0)), rel=1e-12)
    soft = 0.7 * softplus(-(difference - 1.0)) + 0.3 * softplus(-(-difference - 1.0))
    assert loss("simpo", p=0.7) == pytest.approx(soft, rel=1e-12)


def test_orpo_by_hand():
    mean = np.array([-7 / 3, -9.5 / 5])
    odds = np.log(np.exp(mean) / (1 - np.exp(mean)))
    expected = -mean[0] + 0.1 * softplus(-(odds[0] - odds[1]))
    assert loss("orpo") == pytest.approx(expected, rel=1e-12)
    reverse = -mean[1] + 0.1 * softplus(odds[0] - odds[1])
    assert loss("orpo", p=0.6) == pytest.approx(0.6 * expected + 0.4 * reverse, rel=1e-12)
    # P = 1 - 1e-9 has log odds of 20.7, which a plain log(1 - P) in float32 doesn't have.
    sure = loss("orpo", policy=(-3e-9, -9.5), dtype=torch.float32)
    assert sure == pytest.approx(0.1 * softplus(-(math.log(1e9) - odds[1])) + 1e-9, rel=1e-3)


def test_simpo_and_orpo_need_no_reference():
    logps, labels = pair()
    without = GroupLogps(logps.policy, None, logps.tokens, logps.group)
    for name in ("simpo", "orpo"):
        objective = build_objective(name, {})
        assert objective(without, labels).item() == objective(logps, labels).item()


@pytest.mark.parametrize(
    ("safe", "p", "by_hand"),
    [
        ((1.0, 1.0), 1.0, softplus(-0.2 * H)),
        ((1.0, 1.0), 0.0, softplus(0.2 * H)),
        ((1.0, 0.0), 1.0, softplus(-(0.2 * H - 4))),
        ((0.0, 1.0), 1.0, softplus(-(-0.2 * H - 4))),  # swapped: the safe answer wins
        ((1.0, 0.0), 0.0, softplus(-(0.2 * H - 4))),  # whatever the order
        ((0.0, 0.0), 1.0, 0.0),
    ],
)
def test_safedpo_by_hand(safe, p, by_hand):
    assert loss("safedpo", {"beta": 0.2, "safety_margin": 4.0}, safe=safe, p=p) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("p", [1.0, 0.0])
@pytest.mark.parametrize("safe", itertools.product((1, 0), repeat=2))
def test_bso_by_hand(safe, p):
    """The paper's constants but C, written with powers of R, on SafeDPO's pairs: swapped and dropped by the flags."""
    unsafe, margin = [1 - flag for flag in safe], H
    if unsafe == [1, 0] or (unsafe == [0, 0] and not p):
        unsafe, margin = unsafe[::-1], -H
    ratio = np.exp(-(0.1 * margin + 2.0 * (unsafe[0] - unsafe[1])))
    expected = 0.0 if unsafe == [1, 1] else (0.2 * ratio**1.2 - 1.2 * ratio**-0.2 + 1) / (4 * 0.2 * 1.2)
    assert loss("bso", {"unsafe_cost": 2.0}, safe=safe, p=p) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["safedpo", "bso", "dpo"])
def test_a_policy_learns_which_answer_is_safe_whatever_the_order_says(name):
    """Three answers and two pairs in which the unsafe one is called better; DPO learns that one, as it is told to."""
    labels = GroupLabels(
        torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0, 0]), torch.tensor([1, 2]), torch.ones(2, dtype=torch.float64)
    )
    reference = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64).log()
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        log_ratios = GroupLogps(logits.log_softmax(0), reference, torch.ones(3), torch.zeros(3, dtype=torch.long))
        build_objective(name, {})(log_ratios, labels).sum().backward()
        optimizer.step()
    unsafe = logits.softmax(0)[0].item()
    assert unsafe > 0.9 if name == "dpo" else unsafe < 0.05


def slope(name, options, h, dtype=torch.float64, **changes):
    logps, labels = pair(policy=(h, 0.0), reference=(0.0, 0.0), dtype=dtype, **changes)
    logps.policy.requires_grad_()
    value = build_objective(name, options)(logps, labels).sum()
    (gradient,) = torch.autograd.grad(value, logps.policy)
    return value.item(), gradient[0].item()


@pytest.mark.parametrize("p", [1.0, 0.0])
@pytest.mark.parametrize("safe", [(1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("h", [-5000.0, -10.0, -1.0, 0.0, 10.0, 5000.0])
def test_bso_is_finite_in_float32_and_always_has_a_gradient(h, safe, p):
    """At the paper's C a clamp of log R at 30 has no gradient for h < 0, where an unsafe answer is the likelier one."""
    value, gradient = slope("bso", {}, h, torch.float32, safe=safe, p=p)
    assert math.isfinite(value)
    assert math.isfinite(gradient)
    # The loss falls with h if the first answer is the safe one, and rises if the other is.
    assert gradient < 0 if safe[0] else gradient > 0
    assert abs(gradient) < 1e15


def test_bso_is_continuous_where_its_tangent_begins():
    for edge in (300.0, -300.0):
        below, above = (slope("bso", {"unsafe_cost": 0.0}, edge + step, safe=(1.0, 1.0)) for step in (-1e-6, 1e-6))
        assert below == pytest.approx(above, rel=1e-5)
    # Inside, the slope is that of the formula: (R^1.2 + R^-.2)/4 by log R, times -beta.
    _, gradient = slope("bso", {"unsafe_cost": 1.0}, 20.0)
    assert gradient == pytest.approx(-0.1 * (np.exp(-1.2) + np.exp(0.2)) / 4)


def hard_mean(name, options, safe, p):
    """Mean loss over the eight hard labelings of a pair, each weighted by its probability."""
    total = 0.0
    for w, l, first in itertools.product([0.0, 1.0], repeat=3):
        chance = math.prod(value if hard else 1 - value for hard, value in zip((w, l, first), (*safe, p), strict=True))
        total += chance * loss(name, options, safe=(w, l), p=first)
    return total


@pytest.mark.parametrize(("name", "options"), [("safedpo", {"safety_margin": 2.0}), ("bso", {"unsafe_cost": 2.0})])
@given(probabilities, probabilities, probabilities)
def test_probabilities_give_the_mean_loss_over_hard_labels(name, options, s, other, p):
    found = loss(name, options, safe=(s, other), p=p)
    assert found == pytest.approx(hard_mean(name, options, (s, other), p), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["safedpo", "bso"])
def test_products_of_flags_refuse_unbiased_and_unknown_flags(name):
    with pytest.raises(BfpoError, match="needs probabilities, and one safety flag"):
        loss(name, safe=(1.2, 0.0))
    with pytest.raises(BfpoError, match="needs the safety of every answer"):
        loss(name, safe=(1.0, math.nan))


def test_modpo_by_hand():
    """The margin of the other reward is taken off before the order is read: (beta h - .25 (2.0 - .5))/.75."""
    logit = (0.2 * H - 0.25 * 1.5) / 0.75
    options = {"beta": 0.2, "preference_weight": 0.75}
    assert loss("modpo", options, reward=(2.0, 0.5)) == pytest.approx(softplus(-logit), rel=1e-12)
    assert loss("modpo", options, reward=(2.0, 0.5), p=0.0) == pytest.approx(softplus(logit), rel=1e-12)
    assert loss("modpo", {"preference_weight": 1}, reward=(2.0, 0.5)) == pytest.approx(loss("dpo"), rel=1e-12)
    with pytest.raises(BfpoError, match="MODPO needs the reward of every answer"):
        loss("modpo")


def test_modpo_maximizes_the_weighted_sum_of_both_rewards():
    """A tabular policy over 4 answers, trained on the orders of Bradley and Terry, ends at the tilted reference."""
    reward, other = (torch.tensor(values, dtype=torch.float64) for values in ([0.3, -1, 2, 0.5], [1, 0, -2, 0.2]))
    first, second = (torch.tensor(side) for side in zip(*itertools.combinations(range(4), 2), strict=True))
    reference = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64).log()
    labels = GroupLabels(torch.ones(4), first, second, (reward[first] - reward[second]).sigmoid(), reward=other)
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    objective = build_objective("modpo", {"beta": 0.5, "preference_weight": 0.7})
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=2000, tolerance_grad=1e-14, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        one_group = torch.zeros(4, dtype=torch.long)
        value = objective(GroupLogps(logits.log_softmax(0), reference, torch.ones(4), one_group), labels).sum()
        value.backward()
        return value

    optimizer.step(closure)
    optimum = (reference + (0.7 * reward + 0.3 * other) / 0.5).softmax(0)
    torch.testing.assert_close(logits.detach().softmax(0), optimum, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dpo", {"label_smoothing": 0.5}, r"label_smoothing must be in \[0, 0.5\)"),
        ("rdpo", {"label_smoothing": 0.0}, r"in \(0, 0.5\), not 0.0: use 'dpo'"),
        ("simpo", {"simpo_gamma": -1.0}, "simpo_gamma must be at least 0"),
        ("simpo", {"beta": 0.0}, "beta must be greater than 0"),
        ("simpo", {"reduction": "mean"}, "does not read the option 'reduction'"),
        ("safedpo", {"safety_margin": math.inf}, "safety_margin must be at least 0"),
        ("bso", {"unsafe_cost": math.nan}, "unsafe_cost must be at least 0"),
        ("bso", {"bregman_lambda": 0.0}, "bregman_lambda must be in"),
        ("bso", {"bregman_scale": -1.0}, "bregman_scale must be greater than 0"),
        ("modpo", {"preference_weight": 0.0}, "preference_weight must be in"),
        ("dpo", {"safety_margin": 1.0}, "does not read the option 'safety_margin'"),
    ],
)
def test_options_out_of_range_or_unread_are_refused(name, options, message):
    with pytest.raises(BfpoError, match=message):
        build_objective(name, options)


@pytest.mark.parametrize(
    ("ours", "options", "theirs", "smoothing"),
    [
        ("dpo", {}, "sigmoid", 0.0),
        ("rdpo", {"label_smoothing": 0.2}, "robust", 0.2),
        ("ipo", {"reduction": "mean"}, "ipo", 0.0),
    ],
)
def test_losses_of_trls_dpo_trainer(ours, options, theirs, smoothing):
    trl_losses = pytest.importorskip("objectives.trl_losses")
    generator = np.random.default_rng(0)
    for _ in range(20):
        policy, reference = -20 * generator.random((2, 2))
        expected = trl_losses.dpo_loss(theirs, policy, reference, TOKENS, 0.3, smoothing)
        assert loss(ours, {"beta": 0.3, **options}, policy=policy, reference=reference) == pytest.approx(
            expected, abs=1e-5, rel=1e-6
        )


def test_losses_of_trls_cpo_and_orpo_trainers():
    trl_losses = pytest.importorskip("objectives.trl_losses")
    generator = np.random.default_rng(1)
    for _ in range(20):
        policy = -20 * generator.random(2) - 0.01
        means = policy / TOKENS
        simpo = loss("simpo", {"beta": 2.5, "simpo_gamma": 1.4}, policy=policy)
        assert simpo == pytest.approx(trl_losses.simpo_loss(means, 2.5, 1.4), abs=1e-5)
        orpo = loss("orpo", {"beta": 0.3}, policy=policy)
        assert orpo == pytest.approx(-means[0] - trl_losses.odds_ratio_term(means, 0.3), abs=1e-5)
