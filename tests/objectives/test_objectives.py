"""Every objective against its formula, written out for single numbers."""

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bfpo import bfpo_loss
from bfpo.errors import BfpoError
from bfpo.groups import GroupLabels, GroupLogps
from bfpo.objectives import registry
from bfpo.objectives.bfpo import BFPO
from bfpo.objectives.pairwise import DPO
from bfpo.objectives.registry import build_objective, option_types

logp = st.floats(-60, -0.1)


def pair(policy, reference, tokens=(3, 5), safe=(1.0, 0.0), p=1.0):
    double = torch.float64
    logps = GroupLogps(
        policy=torch.tensor(policy, dtype=double),
        reference=None if reference is None else torch.tensor(reference, dtype=double),
        tokens=torch.tensor(tokens),
        group=torch.zeros(len(policy), dtype=torch.long),
    )
    labels = GroupLabels(
        is_safe=torch.tensor(safe, dtype=double),
        first=torch.tensor([0]),
        second=torch.tensor([1]),
        first_is_better=torch.tensor([p], dtype=double),
    )
    return logps, labels


@given(logp, logp, logp, logp, st.floats(0, 1))
def test_dpo_is_its_formula(chosen, rejected, ref_chosen, ref_rejected, p):
    logps, labels = pair([chosen, rejected], [ref_chosen, ref_rejected], p=p)
    x = 0.2 * ((chosen - ref_chosen) - (rejected - ref_rejected))
    expected = p * math.log1p(math.exp(-x)) + (1 - p) * math.log1p(math.exp(x))
    assert build_objective("dpo", {"beta": 0.2})(logps, labels).item() == pytest.approx(expected, rel=1e-9)


@given(logp, logp, logp, logp)
def test_ipo_is_its_formula_summed_or_averaged(chosen, rejected, ref_chosen, ref_rejected):
    logps, labels = pair([chosen, rejected], [ref_chosen, ref_rejected])
    h_sum = (chosen - ref_chosen) - (rejected - ref_rejected)
    h_mean = (chosen - ref_chosen) / 3 - (rejected - ref_rejected) / 5
    total = build_objective("ipo", {"beta": 0.5})(logps, labels).item()
    mean = build_objective("ipo", {"beta": 0.5, "reduction": "mean"})(logps, labels).item()
    assert total == pytest.approx((h_sum - 1) ** 2, rel=1e-9, abs=1e-9)
    assert mean == pytest.approx((h_mean - 1) ** 2, rel=1e-9, abs=1e-9)


def test_bfpo_on_two_safe_answers_is_ipo():
    logps, labels = pair([-7.0, -9.5], [-8.0, -9.0], safe=(1.0, 1.0))
    bfpo, ipo = (build_objective(name, {"beta": 0.25})(logps, labels) for name in ("bfpo", "ipo"))
    assert bfpo.item() == pytest.approx(ipo.item(), rel=1e-12)


@pytest.mark.parametrize("safe", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.3, 0.8)])
def test_bfpo_objective_is_the_public_loss(safe):
    logps, labels = pair([-7.0, -9.5], [-8.0, -9.0], safe=safe, p=0.8)
    policy, reference = logps.policy, logps.reference
    public = bfpo_loss(
        policy[:1], policy[1:], reference[:1], reference[1:], labels.is_safe[:1], labels.is_safe[1:],
        chosen_is_better=0.8,
    )  # fmt: skip
    assert build_objective("bfpo", {})(logps, labels).item() == pytest.approx(public.item(), rel=1e-12)


@pytest.mark.parametrize(("policy", "target"), [("keep", -0.5), ("neutral", 0.0)])
def test_unsafe_pairs_choose_the_target_of_two_unsafe_answers(policy, target):
    logps, labels = pair([-7.0, -9.5], [-8.0, -9.0], safe=(0.0, 0.0))
    loss = build_objective("bfpo", {"beta": 0.5, "unsafe_pairs": policy})(logps, labels).item()
    assert loss == pytest.approx((1.5 - target / 0.5) ** 2)


def slope(objective, h, safe, p):
    """Derivative of a pair's loss by h, with these flags and this order."""
    logps, labels = pair([h, 0.0], [0.0, 0.0], safe=safe, p=p)
    logps.policy.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(logps, labels).sum(), logps.policy)
    assert gradient[1].item() == pytest.approx(-gradient[0].item(), rel=1e-9, abs=1e-12)
    return gradient[0].item()


def expected_slope(objective, h, safe, p):
    """Its mean over all eight hard labelings of the pair, each weighted by its probability: exact, not sampled."""
    total = 0.0
    for w, l, first in itertools.product([0.0, 1.0], repeat=3):
        chance = math.prod(value if hard else 1 - value for hard, value in zip((w, l, first), (*safe, p), strict=True))
        total += chance * slope(objective, h, (w, l), first)
    return total


@pytest.mark.parametrize("unsafe_pairs", ["keep", "neutral", "drop"])
@given(st.floats(-20, 20), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(1.2, 9), st.floats(-1, 1))
def test_soft_labels_have_the_mean_gradient_over_hard_labels(unsafe_pairs, h, s_w, s_l, p, b1, alpha):
    """The test before this one compared the loss of "drop" with the loss of "keep" times the weight, so it repeated
    the code's own mistake: the weight multiplied G, in which pairs of two unsafe answers still had their -alpha."""
    objective = build_objective("bfpo", {"beta": 0.3, "b1": b1, "alpha": alpha, "unsafe_pairs": unsafe_pairs})
    soft, mean = slope(objective, h, (s_w, s_l), p), expected_slope(objective, h, (s_w, s_l), p)
    assert soft == pytest.approx(mean, rel=1e-9, abs=1e-9)


def test_dropped_pairs_with_probabilities_by_hand():
    """s .6 and .3, p .8, h -1.5, beta .3: w = .72 and G + alpha (2p - 1)(.4)(.7) = .27 + .084 = .354, so the slope is
    2 (.72 (-1.5) - .354/.3) = -4.520; it was 2 (.72)(-1.5 - .27/.3) = -3.456."""
    objective = build_objective("bfpo", {"beta": 0.3, "unsafe_pairs": "drop"})
    assert slope(objective, -1.5, (0.6, 0.3), 0.8) == pytest.approx(-4.520, abs=5e-4)
    logps, labels = pair([-7.0, -9.5], [-8.0, -9.0], safe=(0.0, 0.0))
    assert objective(logps, labels).item() == 0
    assert objective.target(labels).item() == 0


@pytest.mark.parametrize("unsafe_pairs", ["neutral", "drop"])
@pytest.mark.parametrize(("labels", "what"), [({"safe": (1.2, 0.1)}, "safety flag"), ({"p": 1.4}, "order")])
def test_products_of_flags_refuse_unbiased_ones(unsafe_pairs, labels, what):
    """Below 0, the weight of "drop" leaves its loss without a minimum."""
    objective = build_objective("bfpo", {"unsafe_pairs": unsafe_pairs})
    with pytest.raises(BfpoError, match=f"unsafe_pairs '{unsafe_pairs}' needs probabilities, and one {what}"):
        objective(*pair([-7.0, -9.5], [-8.0, -9.0], **labels))


def test_checked_labels_are_not_looked_at_again():
    """Looking waits for the device, in every call; the trainer checks the rows once."""
    logps, labels = pair([-7.0, -9.5], [-8.0, -9.0], safe=(1.2, 0.1))
    for name, options in (("bfpo", {"unsafe_pairs": "drop"}), ("safedpo", {})):
        objective = build_objective(name, options)
        with pytest.raises(BfpoError, match="needs probabilities"):
            objective(logps, labels)
        assert objective(logps, dataclasses.replace(labels, is_checked=True)).isfinite()


def test_costs_are_refused_where_one_is_unknown_or_the_pairs_that_they_tell_apart_are_dropped():
    """Dropping divided the difference of two unsafe answers' costs by the chance that one is safe: a target of 500."""
    logps, labels = pair([-7.0, -9.5], [-8.0, -9.0], safe=(0.001, 0.0))
    priced = dataclasses.replace(labels, cost=torch.tensor([0.5, 1.0]))
    with pytest.raises(BfpoError, match="'drop' would drop pairs that costs of harm tell apart"):
        build_objective("bfpo", {"unsafe_pairs": "drop"})(logps, priced)
    neutral = build_objective("bfpo", {"unsafe_pairs": "neutral"})
    assert neutral.target(priced).item() == pytest.approx(0.5 + 0.0005 + 0.5 * 0.001 - 0.5 * 0.001, abs=1e-6)
    with pytest.raises(BfpoError, match="BFPO needs the cost of every answer"):
        neutral(logps, dataclasses.replace(priced, cost=torch.tensor([0.5, math.nan])))


@given(st.floats(-10, 10), st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.floats(-0.5, 1.5))
def test_unbiased_labels_beyond_probabilities_are_exact_where_pairs_are_kept(h, s_w, s_l, p):
    """G is affine in each label, so the formula holds outside of [0, 1] as well."""
    g = (2 * p - 1) * ((s_w + s_l) / 2 - 0.5) + (0.5 + 0.5) * (s_w - s_l)
    soft = slope(build_objective("bfpo", {"beta": 0.3}), h, (s_w, s_l), p)
    assert soft == pytest.approx(2 * (h - g / 0.3), rel=1e-9, abs=1e-9)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_neutral_target_is_the_expectation_with_unsafe_pairs_at_zero(s_w, s_l, p):
    _, labels = pair([-1.0, -1.0], None, safe=(s_w, s_l), p=p)
    neutral = build_objective("bfpo", {"unsafe_pairs": "neutral"}).target(labels).item()
    hard = {(1, 1): 0.5, (1, 0): 1.0, (0, 1): -1.0, (0, 0): 0.0}
    expected = sum(
        (s_w if w else 1 - s_w) * (s_l if l else 1 - s_l) * (p * hard[w, l] - (1 - p) * hard[l, w]) for w, l in hard
    )
    assert neutral == pytest.approx(expected, abs=1e-9)


def test_group_of_several_answers_is_the_mean_over_its_pairs():
    """Groups of 3 and 2 answers, by an explicit double loop."""
    policy = torch.tensor([-3.0, -5.0, -4.0, -6.0, -2.0], dtype=torch.float64)
    reference = torch.tensor([-4.0, -4.0, -4.5, -5.0, -3.0], dtype=torch.float64)
    safe = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    pairs = [(0, 1, 1.0), (0, 2, 0.7), (1, 2, 0.5), (4, 3, 1.0)]
    logps = GroupLogps(policy, reference, torch.full((5,), 4), torch.tensor([0, 0, 0, 1, 1]))
    labels = GroupLabels(
        safe,
        first=torch.tensor([i for i, _, _ in pairs]),
        second=torch.tensor([j for _, j, _ in pairs]),
        first_is_better=torch.tensor([p for _, _, p in pairs], dtype=torch.float64),
    )

    def single(i, j, p):
        h = (policy[i] - reference[i] - policy[j] + reference[j]).item()
        forward, backward = 1.5 * safe[i] - 0.5 * safe[j] - 0.5, 1.5 * safe[j] - 0.5 * safe[i] - 0.5
        return (h - (p * forward - (1 - p) * backward).item() / 0.2) ** 2

    expected = [sum(single(*one) for one in pairs[:3]) / 3, single(*pairs[3])]
    assert build_objective("bfpo", {"beta": 0.2})(logps, labels).tolist() == pytest.approx(expected)


def test_sft_sums_the_negative_log_probabilities_of_each_group():
    logps = GroupLogps(torch.tensor([-3.0, -5.0]), None, torch.tensor([2, 9]), torch.tensor([0, 1]))
    nothing = torch.zeros(0, dtype=torch.long)
    labels = GroupLabels(torch.full((2,), math.nan), nothing, nothing, torch.zeros(0))
    assert build_objective("sft", {})(logps, labels).tolist() == [3.0, 5.0]


@pytest.mark.parametrize("beta", [0.0, -0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["bfpo", "dpo", "ipo"])
def test_beta_must_be_positive(name, beta):
    with pytest.raises(BfpoError, match="beta must be greater than 0"):
        build_objective(name, {"beta": beta})
    with pytest.raises(BfpoError, match="beta must be greater than 0"):
        bfpo_loss(*torch.zeros(4, 1), 1.0, 1.0, beta=beta)


@pytest.mark.parametrize("name", ["bfpo", "dpo", "ipo"])
def test_mean_reduction_needs_an_explicit_beta(name):
    with pytest.raises(BfpoError, match="explicit beta"):
        build_objective(name, {"reduction": "mean"})
    assert build_objective(name, {"reduction": "mean", "beta": 2.0}).beta == 2.0


def test_mean_reduction_alone_suffices_for_an_objective_without_beta(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class WithoutBeta:
        reduction: str = "sum"

    monkeypatch.setitem(registry.OBJECTIVES, "plain", WithoutBeta)
    assert build_objective("plain", {"reduction": "mean"}) == WithoutBeta("mean")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bfpoo", {}, "did you mean 'bfpo'"),
        ("bfpo", {"betta": 1.0}, "did you mean 'beta'"),
        ("dpo", {"alpha": 0.5}, "does not read the option 'alpha'"),
        ("sft", {"beta": 0.1}, "does not read the option 'beta'"),
        ("bfpo", {"unsafe_pairs": "neutrl"}, "did you mean 'neutral'"),
        ("ipo", {"reduction": "average", "beta": 0.1}, "'sum' or 'mean'"),
        ("bfpo", {"b1": 1.0}, "b1 must be greater than 1"),
    ],
)
def test_mistakes_are_named(name, options, message):
    with pytest.raises(BfpoError, match=message):
        build_objective(name, options)


def test_defaults_are_the_objectives_own():
    assert [build_objective(name, {}).beta for name in ("bfpo", "dpo", "ipo")] == [0.01, 0.1, 0.1]
    assert dataclasses.asdict(build_objective("sft", {})) == {}
    assert dataclasses.asdict(BFPO()) == {
        "beta": 0.01, "b1": 3.0, "alpha": 0.5, "reduction": "sum", "level": 0.0, "unsafe_pairs": "keep",
    }  # fmt: skip


def test_a_rival_is_one_class_and_one_line_of_the_table(monkeypatch):
    """Its options are found without a list of them, one that another objective types differently included."""

    @dataclasses.dataclass(frozen=True)
    class Rival(DPO):
        gamma: int = 7
        alpha: str = "high"

    monkeypatch.setattr(registry, "OBJECTIVES", {**registry.OBJECTIVES, "rival": Rival})
    assert build_objective("rival", {"gamma": 2}) == Rival(gamma=2)
    assert option_types()["gamma"] is int
    assert option_types()["alpha"] == float | str
    with pytest.raises(BfpoError, match=r"does not read the option 'gama' \(did you mean 'gamma'\?\)"):
        build_objective("rival", {"gama": 2})


def test_unknown_safety_and_lone_answers_are_refused():
    logps, labels = pair([-7.0, -9.5], [-8.0, -9.0], safe=(1.0, math.nan))
    with pytest.raises(BfpoError, match="safety of every answer"):
        build_objective("bfpo", {})(logps, labels)
    lone = GroupLogps(logps.policy, logps.reference, logps.tokens, torch.tensor([0, 1]))
    nothing = torch.zeros(0, dtype=torch.long)
    with pytest.raises(BfpoError, match="at least two answers"):
        build_objective("dpo", {})(lone, GroupLabels(labels.is_safe, nothing, nothing, torch.zeros(0)))


def test_missing_reference_is_refused():
    logps, labels = pair([-7.0, -9.5], None)
    with pytest.raises(BfpoError, match="needs reference log-probabilities"):
        build_objective("dpo", {})(logps, labels)
