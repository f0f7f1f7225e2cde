"""Calibration and agreement against scikit-learn, closed forms and simulations."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from bfpo.errors import BfpoError
from bfpo.judges.agreement import (
    JudgeError,
    bootstrapped,
    clustered_rate,
    corrected_rate,
    judge_error,
    kappa,
)
from bfpo.judges.calibration import (
    Scaling,
    auc,
    expected_calibration_error,
    fit_scaling,
    logit,
    reliability,
    sigmoid,
)
from bfpo.statistics.intervals import Estimate, wilson


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=60))
def test_auc_is_scikit_learn_s_ties_included(pairs):
    scores = np.array([score for score, _ in pairs], dtype=float)
    labels = np.array([label for _, label in pairs])
    if labels.all() or not labels.any():
        assert math.isnan(auc(scores, labels))
    else:
        assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_kappa_is_scikit_learn_s(pairs):
    first, second = (np.array([pair[at] for pair in pairs]) for at in (0, 1))
    if len(set(first) | set(second)) == 1:
        assert math.isnan(kappa(first, second))
    else:
        assert kappa(first, second) == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)


def test_ece_by_hand():
    probabilities = np.array([0.1, 0.2, 0.3, 0.8, 0.9, 1.0])
    labels = np.array([False, False, True, True, True, False])
    # Two bins of three: |.2 - 1/3| and |.9 - 2/3|, each with half of the mass.
    assert expected_calibration_error(probabilities, labels, bins=2) == pytest.approx((2 / 15 + 7 / 30) / 2)
    # More bins than answers: every answer alone.
    by_hand = np.mean(np.abs(probabilities - labels))
    assert expected_calibration_error(probabilities, labels, bins=50) == pytest.approx(by_hand)


def test_bins_have_equal_mass():
    random = np.random.default_rng(0)
    bins = reliability(random.random(1003) ** 4, random.random(1003) < 0.5)
    assert sum(part.n for part in bins) == 1003
    assert {part.n for part in bins} == {100, 101}
    assert [part.predicted for part in bins] == sorted(part.predicted for part in bins)


def test_scaling_is_the_likeliest_one():
    random = np.random.default_rng(0)
    logits = 3 * random.normal(size=5000)
    labels = random.random(5000) < sigmoid(0.4 * logits - 0.7)
    positives, negatives = labels.sum(), (~labels).sum()
    target = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(weights):
        return (np.logaddexp(0, weights[0] * logits + weights[1]) - target * (weights[0] * logits + weights[1])).sum()

    independent = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x
    fitted = fit_scaling(logits, labels)
    assert [fitted.slope, fitted.offset] == pytest.approx(independent, rel=1e-4)
    # The truth lies within a few standard errors of it.
    assert fitted.slope == pytest.approx(0.4, abs=0.06)
    assert fitted.offset == pytest.approx(-0.7, abs=0.15)


def test_temperature_alone_has_no_offset():
    random = np.random.default_rng(1)
    logits = 3 * random.normal(size=2000)
    labels = random.random(2000) < sigmoid(logits / 2)
    fitted = fit_scaling(logits, labels, offset=False)
    assert fitted.offset == 0
    assert 1 / fitted.slope == pytest.approx(2, rel=0.15)


def test_scaling_mends_a_judge_that_is_too_sure():
    random = np.random.default_rng(2)
    true_logits = random.normal(size=4000)
    labels = random.random(4000) < sigmoid(true_logits)
    sure = sigmoid(5 * true_logits + 1)
    half = slice(0, 2000), slice(2000, None)
    scaled = fit_scaling(logit(sure[half[0]]), labels[half[0]]).apply(logit(sure[half[1]]))
    assert expected_calibration_error(sure[half[1]], labels[half[1]]) > 0.15
    assert expected_calibration_error(scaled, labels[half[1]]) < 0.05


def test_perfectly_separated_labels_have_a_finite_scaling():
    fitted = fit_scaling([-1.0, -2.0, 1.0, 2.0], [False, False, True, True])
    assert 0 < fitted.slope < 10


def test_large_logits_do_not_overflow():
    logits = np.array([-1e6, -1e5, 1e5, 1e6, 3.0, -3.0] * 5)
    fitted = fit_scaling(logits, np.tile([False, False, True, True, False, True], 5))
    assert np.isfinite(fitted.apply(logits)).all()


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [([1.0, 2.0], [True, True], "both kinds"), ([1.0, 2.0, -1.0, -2.0], [False, False, True, True], "wrong way")],
)
def test_a_scaling_that_makes_no_sense_is_refused(logits, labels, words):
    with pytest.raises(BfpoError, match=words):
        fit_scaling(logits, labels)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e3), st.floats(-50, 50))
def test_scaled_probabilities_are_probabilities(x, slope, offset):
    assert 0 <= Scaling(slope, offset).apply(np.array([x]))[0] <= 1


def test_independent_answers_have_wilson_s_interval():
    hits = np.array([True] * 30 + [False] * 10)
    estimate, plain = clustered_rate(hits, range(40)), wilson(30, 40)
    assert estimate is not None
    assert estimate.value == 0.75
    # The design effect of independent answers is 40/39.
    assert estimate.n == 39
    assert (estimate.low, estimate.high) == pytest.approx((plain.low, plain.high), abs=0.005)


def test_answers_that_repeat_their_prompt_s_count_once():
    hits = np.repeat([True, True, True, False], 25)
    estimate = clustered_rate(hits, np.repeat(range(4), 25).tolist())
    assert estimate is not None
    assert estimate.n == 3
    assert estimate.high - estimate.low > 0.5


def test_rates_of_0_and_1_count_prompts_and_have_a_width():
    estimate = clustered_rate(np.ones(50, dtype=bool), [0] * 25 + [1] * 25)
    assert estimate is not None
    assert (estimate.value, estimate.high, estimate.n) == (1.0, 1.0, 2)
    assert estimate.low == pytest.approx(wilson(2, 2).low)
    assert clustered_rate(np.array([], dtype=bool), []) is None


def test_the_bootstrap_resamples_prompts():
    values = np.repeat(np.arange(10.0), 30)
    clusters = np.repeat(range(10), 30).tolist()
    together = bootstrapped(lambda at: float(values[at].mean()), clusters)
    apart = bootstrapped(lambda at: float(values[at].mean()), range(300))
    assert together is not None
    assert apart is not None
    assert together.n == 10
    # Standard error of a mean of 10 against that of 300 values.
    ratio = (together.high - together.low) / (apart.high - apart.low)
    assert ratio == pytest.approx(math.sqrt(30), rel=0.15)
    assert bootstrapped(lambda at: float(values[at].mean()), clusters) == together
    assert bootstrapped(lambda at: float(values[at].mean()), clusters, seed=1) != together


def test_a_figure_that_does_not_exist_has_no_interval():
    assert bootstrapped(lambda at: math.nan, [1, 2, 3]) is None
    assert bootstrapped(lambda at: 1.0, []) is None


def known(value, n=10**9):
    return Estimate(value, value, value, n)


def test_rogan_and_gladen_by_hand():
    # docs: a judge with sensitivity .85 and specificity .97 reads a true share of 2 % as 4.64 %, of 40 % as 35.8 %.
    error = JudgeError(known(0.85), known(0.97))
    for truth in (0.02, 0.4):
        observed = truth * 0.85 + (1 - truth) * 0.03
        corrected = corrected_rate(known(observed), error)
        assert corrected.value == pytest.approx(truth, abs=1e-9)
        assert corrected.low == pytest.approx(truth, abs=1e-3)
        assert corrected.high == pytest.approx(truth, abs=1e-3)


def test_corrected_rates_stay_in_0_to_1():
    error = JudgeError(known(0.9), known(0.8))
    assert corrected_rate(known(0.05), error).value == 0
    assert corrected_rate(known(0.97), error).value == 1


@pytest.mark.parametrize("pair", [(0.5, 0.5), (0.3, 0.6)])
def test_a_judge_no_better_than_chance_corrects_nothing(pair):
    with pytest.raises(BfpoError, match="no better than chance"):
        corrected_rate(known(0.4), JudgeError(known(pair[0]), known(pair[1])))


def test_few_labels_make_wide_intervals_and_a_doubtful_judge_none_at_all():
    few = corrected_rate(wilson(30, 100), JudgeError(wilson(9, 10), wilson(10, 10)))
    many = corrected_rate(wilson(30, 100), JudgeError(wilson(900, 1000), wilson(1000, 1000)))
    assert few.high - few.low > 1.2 * (many.high - many.low)
    doubtful = corrected_rate(wilson(30, 100), JudgeError(wilson(3, 5), wilson(3, 5)))
    assert (doubtful.low, doubtful.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("truth", "sensitivity", "specificity"), [(0.3, 0.85, 0.9), (0.05, 0.8, 0.97), (0.6, 0.95, 0.7)]
)
def test_corrected_intervals_cover_the_truth(truth, sensitivity, specificity):
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        labelled = random.random(300) < 0.4
        said = np.where(labelled, random.random(300) < sensitivity, random.random(300) >= specificity)
        unsafe = random.random(400) < truth
        observed = np.where(unsafe, random.random(400) < sensitivity, random.random(400) >= specificity)
        rate = wilson(int(observed.sum()), 400)
        estimate = corrected_rate(rate, judge_error(labelled, said, range(300)), draws=1000)
        covered += estimate.low <= truth <= estimate.high
    # 95 % of 300 with a standard error of 1.3 points.
    assert covered >= 0.92 * 300


def test_error_needs_both_kinds():
    with pytest.raises(BfpoError, match="both kinds"):
        judge_error(np.array([True, True]), np.array([True, False]), [0, 1])


def test_error_by_hand():
    unsafe = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    said = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0], dtype=bool)
    error = judge_error(unsafe, said, range(9))
    assert (error.sensitivity.value, error.specificity.value) == (0.75, 0.8)
