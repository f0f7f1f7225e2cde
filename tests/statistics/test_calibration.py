"""Calibration against scikit-learn, closed forms and simulations."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit as sigmoid
from sklearn.metrics import roc_auc_score

from bfpo.errors import BfpoError
from bfpo.statistics.calibration import Scaling, auc, calibration_error, fit_scaling, logit, reliability
from bfpo.statistics.intervals import wilson


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=60))
def test_auc_is_scikit_learn_s_ties_included(pairs):
    scores = np.array([score for score, _ in pairs], dtype=float)
    labels = np.array([label for _, label in pairs])
    if labels.all() or not labels.any():
        assert auc(scores, labels) is None
    else:
        found = auc(scores, labels)
        assert found.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert 0 <= found.low <= found.value + 1e-12 <= found.high + 2e-12 <= 1 + 2e-12
        assert found.low < found.high


def test_ece_by_hand():
    probabilities = np.array([0.1, 0.2, 0.3, 0.8, 0.9, 1.0])
    labels = np.array([False, False, True, True, True, False])
    # Two bins of three: |.2 - 1/3| and |.9 - 2/3|, each with half of the mass.
    assert calibration_error(probabilities, labels, bins=2).value == pytest.approx((2 / 15 + 7 / 30) / 2)
    # More bins than answers: every answer alone.
    by_hand = np.mean(np.abs(probabilities - labels))
    assert calibration_error(probabilities, labels, bins=50).value == pytest.approx(by_hand)


def test_bins_have_equal_mass():
    random = np.random.default_rng(0)
    bins = reliability(random.random(1003) ** 4, random.random(1003) < 0.5)
    assert sum(part.observed.n for part in bins) == 1003
    assert {part.observed.n for part in bins} == {100, 101}
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


def test_scaling_mends_a_judge_that_is_too_sure():
    random = np.random.default_rng(2)
    true_logits = random.normal(size=4000)
    labels = random.random(4000) < sigmoid(true_logits)
    sure = sigmoid(5 * true_logits + 1)
    half = slice(0, 2000), slice(2000, None)
    scaled = fit_scaling(logit(sure[half[0]]), labels[half[0]]).apply(logit(sure[half[1]]))
    assert calibration_error(sure[half[1]], labels[half[1]]).value > 0.15
    assert calibration_error(scaled, labels[half[1]]).value < 0.05


def test_perfectly_separated_labels_have_a_finite_scaling():
    fitted = fit_scaling([-1.0, -2.0, 1.0, 2.0], [False, False, True, True])
    assert 0 < fitted.slope < 10


def test_large_logits_do_not_overflow():
    logits = np.array([-1e6, -1e5, 1e5, 1e6, 3.0, -3.0] * 5)
    fitted = fit_scaling(logits, np.tile([False, False, True, True, False, True], 5))
    assert np.isfinite(fitted.apply(logits)).all()


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        ([1.0, 2.0], [True, True], "both kinds"),
        ([1.0, 2.0, -1.0, -2.0], [False, False, True, True], "false labels above true"),
    ],
)
def test_a_scaling_that_makes_no_sense_is_refused(logits, labels, words):
    with pytest.raises(BfpoError, match=words):
        fit_scaling(logits, labels)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e3), st.floats(-50, 50))
def test_scaled_probabilities_are_probabilities(x, slope, offset):
    assert 0 <= Scaling(slope, offset).apply(np.array([x]))[0] <= 1


def test_auc_covers_the_truth_with_few_of_one_kind_and_with_clusters():
    random = np.random.default_rng(3)

    def coverage(positives, negatives, shift, size):
        truth, hits = scipy.stats.norm.cdf(shift / math.sqrt(2)), 0
        for _ in range(300):
            # A prompt's answers share half of their variance.
            shared = np.repeat(random.normal(size=(positives + negatives) // size), size)
            noise = random.normal(size=positives + negatives)
            labels = np.arange(positives + negatives) < positives
            scores = math.sqrt(0.5) * (shared + noise) + shift * labels if size > 1 else noise + shift * labels
            found = auc(scores, labels, (np.arange(len(labels)) // size).tolist())
            hits += found.low <= truth <= found.high
        return hits / 300

    for case in ((6, 100, 2.0, 1), (20, 20, 1.0, 1), (100, 200, 0.5, 1), (60, 90, 1.0, 3)):
        assert 0.91 <= coverage(*case) <= 0.995, case


def test_complete_separation_is_not_certainty():
    found = auc(np.arange(105.0), np.arange(105) >= 100)
    assert (found.value, found.high, found.n) == (1.0, 1.0, 105)
    assert found.low == pytest.approx(wilson(5, 5).low)  # five true answers were all that there was to separate
    assert (auc(np.arange(4.0), np.arange(4) > 1, [0] * 4).low, auc(np.ones(3), np.ones(3))) == (0.0, None)


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.5001, 0.9]), st.booleans()), min_size=1, max_size=60), st.randoms()
)
def test_the_order_of_rows_changes_neither_error_nor_bins(rows, random):
    """100 answers with p = .5, of which half are true, had an error of .5, .1 or 0."""
    shuffled = random.sample(rows, len(rows))
    (p, labels), (q, others) = (np.array(side, dtype=float).T for side in (rows, shuffled))
    assert calibration_error(p, labels).value == pytest.approx(calibration_error(q, others).value, abs=1e-12)
    bins, others = reliability(p, labels), reliability(q, others)
    assert [part.observed for part in bins] == [part.observed for part in others]
    assert [part.predicted for part in bins] == pytest.approx([part.predicted for part in others])
    assert len(bins) <= len(set(p)) <= 4  # equal probabilities share a bin


def exceeded(draw, trials=120):
    """How often an error is larger than by chance, and the mean error."""
    random = np.random.default_rng(4)
    found = [calibration_error(*draw(random)) for _ in range(trials)]
    return np.mean([error.value > error.by_chance for error in found]), np.mean([error.value for error in found])


def calibrated(n, rate, size=1, off=0.0):
    """Labels of a judge that is wrong by ``off``; those of a prompt are drawn together."""

    def draw(random):
        p, prompts = rate(random, n), np.repeat(np.arange(n // size), size)
        truth = np.clip(p + np.where(p > 0.5, -off, off), 0, 1)
        return p, random.random(n // size)[prompts] < truth, prompts.tolist()

    return draw


@pytest.mark.parametrize(
    ("n", "rate", "size"),
    [
        (200, lambda random, n: random.random(n), 1),
        (60, lambda random, n: 0.2 * random.random(n) ** 6, 1),
        (300, lambda random, n: random.choice([0.1, 0.5, 0.9], n), 1),
        (600, lambda random, n: random.random(n), 10),
    ],
)
def test_a_calibrated_judge_exceeds_the_error_by_chance_in_one_sample_of_twenty(n, rate, size):
    """Its estimate is far above the truth, 0, which no interval around the estimate held."""
    share, mean = exceeded(calibrated(n, rate, size))
    assert share <= 0.1
    assert mean > 0.01


def test_an_error_of_3_percent_is_shown_by_many_answers_and_not_by_few():
    shares = [exceeded(calibrated(n, lambda random, n: random.random(n), off=0.03), 30)[0] for n in (200, 6000)]
    assert shares[0] < 0.3
    assert shares[1] > 0.95


def test_ten_answers_to_each_prompt_count_as_one():
    random = np.random.default_rng(4)
    p = random.random(300)
    labels = random.random(300) < p
    alone = calibration_error(p, labels)
    together = calibration_error(np.repeat(p, 10), np.repeat(labels, 10), np.repeat(range(300), 10).tolist())
    assert (together.value, together.n) == (pytest.approx(alone.value), 3000)
    assert together.by_chance == pytest.approx(alone.by_chance, rel=0.1)
    one = calibration_error(p, labels, [0] * 300)
    assert one.value <= one.by_chance  # one prompt shows nothing


def test_a_bin_of_few_prompts_says_so():
    """100 answers to 5 prompts, of which none is true, had an upper bound of .037."""
    (part,) = reliability(np.full(100, 0.2), np.zeros(100), np.repeat(range(5), 20).tolist())
    assert (part.predicted, part.observed.value, part.observed.n) == (pytest.approx(0.2), 0.0, 100)
    assert part.observed.high == pytest.approx(wilson(0, 5).high)
    assert reliability(np.full(100, 0.2), np.zeros(100))[0].observed.high == pytest.approx(wilson(0, 100).high)
