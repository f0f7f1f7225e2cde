"""Tests of the posterior against Bayes by counting, and of its range."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.judges.verdict import Verdict
from bfpo.labeling.posterior import base_rate, estimate_error, posterior_safe
from bfpo.statistics.intervals import Estimate, wilson
from bfpo.statistics.judge_error import JudgeError

SAFE, UNSAFE = Verdict("safe", 0.9), Verdict("unsafe", 0.2)
UNSURE, UNPARSED = Verdict("controversial", 0.5), Verdict("unparsed", None)
shares = st.floats(0, 1)


def test_posterior_is_the_share_found_by_counting():
    """1,000 answers, 700 safe; 90 % of the safe ones and 20 % of the unsafe ones are called safe."""
    rates = JudgeError.from_rates(sensitivity=0.8, specificity=0.9)
    assert posterior_safe([SAFE], [rates], 0.7) == pytest.approx(630 / (630 + 60))
    assert posterior_safe([UNSAFE], [rates], 0.7) == pytest.approx(70 / (70 + 240))
    # Two such judges, independent given the truth, both say safe.
    both = 700 * 0.9 * 0.9, 300 * 0.2 * 0.2
    assert posterior_safe([SAFE, SAFE], [rates, rates], 0.7) == pytest.approx(both[0] / sum(both))


def test_controversial_counts_by_its_own_likelihoods():
    rates = JudgeError(Estimate(0.9, 0.9, 0.9, 0), Estimate(0.8, 0.8, 0.8, 0), controversial=(0.1, 0.3))
    assert posterior_safe([UNSURE], [rates], 0.5) == pytest.approx(0.25)
    assert posterior_safe([UNSAFE], [rates], 0.5) == pytest.approx(1 / 7)


def test_an_unparsed_verdict_is_no_evidence_and_never_safe():
    rates = JudgeError.from_rates(0.8, 0.9)
    assert posterior_safe([UNPARSED], [rates], 0.99) is None
    assert posterior_safe([UNPARSED, SAFE], [rates, rates], 0.7) == posterior_safe([SAFE], [rates], 0.7)


@given(shares, shares, shares, st.lists(st.sampled_from([SAFE, UNSAFE, UNPARSED]), min_size=1, max_size=4))
def test_posterior_stays_in_the_unit_interval(sensitivity, specificity, prior, verdicts):
    rates = JudgeError.from_rates(sensitivity, specificity)
    found = posterior_safe(verdicts, [rates] * len(verdicts), prior)
    assert (found is None) == all(verdict is UNPARSED for verdict in verdicts)
    assert found is None or 0 <= found <= 1


@given(st.floats(0.5, 0.99), st.floats(0.5, 0.99), st.floats(0.01, 0.99))
def test_a_judge_better_than_chance_moves_towards_its_word_and_keeps_the_mean(sensitivity, specificity, prior):
    rates = JudgeError.from_rates(sensitivity, specificity)
    safe, unsafe = posterior_safe([SAFE], [rates], prior), posterior_safe([UNSAFE], [rates], prior)
    assert safe is not None
    assert unsafe is not None
    assert unsafe <= prior + 1e-12 <= safe + 2e-12
    # The expected posterior is the prior.
    says_safe = prior * specificity + (1 - prior) * (1 - sensitivity)
    assert says_safe * safe + (1 - says_safe) * unsafe == pytest.approx(prior)


def test_an_error_is_estimated_from_peoples_labels():
    found = estimate_error([1.0] * 20 + [0.0] * 10, [SAFE] * 18 + [UNSAFE] * 2 + [SAFE] * 3 + [UNSAFE] * 7)
    assert (found.specificity, found.sensitivity) == (wilson(18, 20), wilson(7, 10))
    # In the posterior half an answer is added to every count.
    assert found.likelihoods("safe") == pytest.approx((18.5 / 21, 3.5 / 11))
    assert found.likelihoods("unsafe") == pytest.approx((2.5 / 21, 7.5 / 11))


def test_too_few_answers_give_no_estimate():
    assert estimate_error([1.0] * 20 + [0.0] * 9, [SAFE] * 29) is None
    assert estimate_error([1.0] * 20 + [0.0] * 10, [SAFE] * 20 + [UNPARSED] * 10) is None
    assert base_rate([]) == 0.5
    assert base_rate([1.0, 0.0, 1.0]) == 0.625
