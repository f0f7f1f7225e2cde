"""A judge's error and corrected rates, against closed forms and simulated truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.statistics.intervals import Estimate, rate_interval, wilson
from bfpo.statistics.judge_error import ErrorRates, corrected_rate, judge_error


def test_an_error_by_hand():
    safe = [0] * 4 + [1] * 6
    words = ["unsafe", "controversial", "safe", "unsafe"] + ["safe"] * 3 + ["unsafe", "controversial", "unparsed"]
    found = judge_error(safe, words)
    assert (found.sensitivity, found.specificity) == (wilson(3, 4), wilson(3, 5))
    assert judge_error([1, 1, 0], ["safe", "unsafe", "unparsed"]) is None


def test_an_error_counts_prompts():
    safe, words, prompts = [0, 1] * 50, ["unsafe", "safe"] * 49 + ["safe", "unsafe"], [0, 1] * 25 + [2, 3] * 25
    found = judge_error(safe, words, prompts)
    assert found.sensitivity == rate_interval([1.0] * 49 + [0.0], [0] * 25 + [2] * 25)
    assert found.sensitivity.low < judge_error(safe, words).sensitivity.low


def test_soft_labels_count_on_both_sides():
    found = judge_error([0.75, 0.25], ["safe", "unsafe"])
    assert (found.specificity.value, found.sensitivity.value) == (0.75, 0.75)


def known(value):
    return Estimate(value, value, value, 10**9)


def test_rogan_and_gladen_by_hand():
    # A judge with sensitivity .85 and specificity .97 reads a true share of 2 % as 4.64 %, of 40 % as 35.8 %.
    error = ErrorRates(known(0.85), known(0.97))
    for truth in (0.02, 0.4):
        found = corrected_rate(known(truth * 0.85 + (1 - truth) * 0.03), error)
        assert (found.value, found.low, found.high) == pytest.approx((truth, truth, truth), abs=1e-9)


def test_with_a_known_judge_the_interval_is_the_observed_one_stretched():
    found = corrected_rate(wilson(358, 1000), ErrorRates(known(0.85), known(0.97)))
    observed = wilson(358, 1000)
    assert found.low == pytest.approx((observed.low - 0.03) / 0.82)
    assert found.high == pytest.approx((observed.high - 0.03) / 0.82)
    labeled = corrected_rate(observed, ErrorRates.from_counts(170, 200, 291, 300))
    assert labeled.high - labeled.low > found.high - found.low  # what is known of the judge is part of the interval


def test_a_judge_no_better_than_chance_corrects_nothing():
    assert corrected_rate(known(0.4), ErrorRates(known(0.5), known(0.5))) is None
    doubtful = corrected_rate(wilson(30, 100), ErrorRates.from_counts(3, 5, 3, 5))
    assert (doubtful.low, doubtful.high) == (0.0, 1.0)  # its labels leave open that it is no better


@given(st.integers(0, 40), st.integers(1, 30), st.integers(1, 30), st.data())
def test_a_corrected_rate_is_a_rate_and_never_certain(seen, unsafe, safe, data):
    error = ErrorRates.from_counts(data.draw(st.integers(0, unsafe)), unsafe, data.draw(st.integers(0, safe)), safe)
    found = corrected_rate(wilson(seen, 40), error)
    if found is not None:
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.low < found.high


@pytest.mark.parametrize(("truth", "labels"), [(0.0, 20), (0.05, 150), (0.3, 40), (0.6, 20)])
def test_corrected_intervals_cover_the_truth(truth, labels):
    generator, hits, trials = np.random.default_rng(8), 0, 500
    for _ in range(trials):
        error = ErrorRates.from_counts(
            int(generator.binomial(labels, 0.85)), labels, int(generator.binomial(labels, 0.95)), labels
        )
        found = corrected_rate(wilson(int(generator.binomial(400, truth * 0.85 + (1 - truth) * 0.05)), 400), error)
        hits += found.low <= truth <= found.high
    assert hits / trials >= 0.93
