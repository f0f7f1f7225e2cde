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


def drawn(sensitivity, specificity, truth, random, clusters=None):
    """Labels of a judge with these rates; answers of one cluster err together."""
    own = np.arange(len(truth)) if clusters is None else clusters
    luck = random.random(own.max() + 1)[own]
    is_right = luck < np.where(truth, specificity, sensitivity)
    return ["safe" if right == bool(safe) else "unsafe" for right, safe in zip(is_right, truth, strict=True)]


def test_undecided_labels_say_nothing_about_a_judge():
    random = np.random.default_rng(0)
    truth = (random.random(60_000) < 0.6).astype(float)
    words = drawn(0.8, 0.88, truth, random)
    # A third of the labels is undecided, and another third a calibrated probability.
    soft = np.where(random.random(len(truth)) < 1 / 3, 0.5, truth)
    wrong = random.random(len(truth)) < 0.2
    part = random.random(len(truth)) < 0.5
    # P(safe | a person's word that is wrong on 20 % of the answers), by Bayes.
    said = np.where(wrong, 1 - truth, truth)
    posterior = np.where(said == 1, 0.6 * 0.8 / (0.6 * 0.8 + 0.4 * 0.2), 0.6 * 0.2 / (0.6 * 0.2 + 0.4 * 0.8))
    found = judge_error(np.where(part & (soft != 0.5), posterior, soft), words)
    assert found.sensitivity.value == pytest.approx(0.8, abs=0.015)
    assert found.specificity.value == pytest.approx(0.88, abs=0.015)


def test_one_soft_label_changes_nothing_much():
    # 40 prompts with 20 answers each, on which the judge is right or wrong together.
    random = np.random.default_rng(1)
    prompts = np.repeat(np.arange(40), 20)
    truth = np.zeros(800)
    truth[::10] = 1.0
    words = drawn(0.7, 0.9, truth, random, prompts)
    certain = judge_error(truth, words, prompts.tolist())
    truth[1] = 0.01
    soft = judge_error(truth, words, prompts.tolist())
    for one, other in ((certain.sensitivity, soft.sensitivity), (certain.specificity, soft.specificity)):
        assert other.value == pytest.approx(one.value, abs=0.01)
        assert other.high - other.low == pytest.approx(one.high - one.low, rel=0.2)


def test_the_interval_of_soft_labels_covers_with_clusters():
    covered = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        prompts = np.repeat(np.arange(60), 4)
        truth = (random.random(240) < 0.5).astype(float)
        words = drawn(0.75, 0.85, truth, random, prompts)
        found = judge_error(np.where(random.random(240) < 0.3, 0.5, truth), words, prompts.tolist())
        covered += found.sensitivity.low < 0.75 < found.sensitivity.high
    assert 182 <= covered <= 199


def test_labels_that_are_all_alike_tell_nothing():
    assert judge_error([0.5, 0.5], ["safe", "unsafe"]) is None
    assert judge_error([], []) is None


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
