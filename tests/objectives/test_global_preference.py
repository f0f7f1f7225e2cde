"""The labeling function against the paper's table, and the properties that single out its constants."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bfpo import GlobalPreference
from bfpo.errors import BfpoError

FLAGS = list(itertools.product([0.0, 1.0], repeat=2))
b1s = st.floats(1.05, 20)
alphas = st.floats(-2, 2)
probabilities = st.floats(0, 1)


@pytest.mark.parametrize(
    ("better_is_safe", "worse_is_safe", "label"),
    [(True, True, 0.5), (True, False, 1.0), (False, True, -1.0), (False, False, -0.5)],
)
def test_golden_targets_of_the_paper(better_is_safe, worse_is_safe, label):
    assert GlobalPreference().target(better_is_safe, worse_is_safe).item() == label


@given(b1s, alphas)
def test_targets_of_any_constants_follow_the_table(b1, alpha):
    target = GlobalPreference(b1, alpha).target(
        torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64),
        torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64),
    )
    table = torch.tensor([1 - alpha, b1 / (b1 - 1) - alpha, -1 / (b1 - 1) - alpha, -alpha], dtype=torch.float64)
    torch.testing.assert_close(target, table, rtol=1e-12, atol=1e-12)


@given(b1s, alphas)
def test_complementing_both_flags_negates_the_label_only_at_alpha_one_half(b1, alpha):
    def largest_asymmetry(preference):
        return max(abs((preference.target(1 - w, 1 - l) + preference.target(w, l)).item()) for w, l in FLAGS)

    assert largest_asymmetry(GlobalPreference(b1, 0.5)) < 1e-4
    if abs(alpha - 0.5) > 1e-3:
        assert largest_asymmetry(GlobalPreference(b1, alpha)) > 1e-3


@given(b1s, alphas, probabilities, probabilities, probabilities)
def test_swapping_the_answers_negates_the_expected_label(b1, alpha, first, second, p):
    preference = GlobalPreference(b1, alpha)
    first, second, p = (torch.tensor(value, dtype=torch.float64) for value in (first, second, p))
    forward, backward = preference.target(first, second, p), preference.target(second, first, 1 - p)
    torch.testing.assert_close(forward, -backward, rtol=1e-9, atol=1e-9)


@given(b1s, alphas, probabilities, probabilities, probabilities)
def test_probabilities_give_the_expectation_over_hard_labels(b1, alpha, first, second, p):
    preference = GlobalPreference(b1, alpha)
    expected = 0.0
    for s1, s2, first_wins in itertools.product([0, 1], repeat=3):
        weight = (first if s1 else 1 - first) * (second if s2 else 1 - second) * (p if first_wins else 1 - p)
        label = (b1 * s1 - s2) / (b1 - 1) - alpha if first_wins else -((b1 * s2 - s1) / (b1 - 1) - alpha)
        expected += weight * label
    double = [torch.tensor(value, dtype=torch.float64) for value in (first, second, p)]
    assert preference.target(*double).item() == pytest.approx(expected, abs=1e-9)


def test_order_induced_by_the_reward_is_the_papers():
    preference = GlobalPreference()
    helpful_safe, unhelpful_safe, unhelpful_unsafe, helpful_unsafe = preference.reward(
        torch.tensor([0.9, 0.1, 0.1, 0.9]), torch.tensor([1.0, 1.0, 0.0, 0.0]), 0.5
    )
    assert helpful_safe > unhelpful_safe > unhelpful_unsafe > helpful_unsafe


def test_integer_and_boolean_flags_are_read_as_numbers():
    mixed = GlobalPreference().target(torch.tensor([True, False]), torch.tensor([0, 1]), torch.tensor([1.0, 0.5]))
    assert mixed.tolist() == [1.0, pytest.approx(0.5 * -1 - 0.5 * 1)]


@pytest.mark.parametrize("b1", [1.0, 0.5, -3.0, float("nan"), float("inf")])
def test_b1_must_exceed_one(b1):
    with pytest.raises(BfpoError, match="b1 must be greater than 1"):
        GlobalPreference(b1=b1)


def test_alpha_must_be_finite():
    with pytest.raises(BfpoError, match="alpha"):
        GlobalPreference(alpha=float("nan"))
