"""Flags that err: training on them against clean training by enumeration, and estimates against simulated truth."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.objectives.bfpo import GlobalPreference
from bfpo.statistics.flag_channel import (
    doubly_robust,
    flag_channel,
    order_error,
    rest_weights,
    unbiased_order,
    weighted_rate,
)
from bfpo.statistics.intervals import wilson

rates = st.floats(0.0, 0.4)
flags = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=4)


def channel_of(sensitivity, specificity):
    """The exact channel of a verdict, from expected counts."""
    counts = {
        (1.0, 1.0): specificity,
        (0.0, 1.0): 1 - specificity,
        (0.0, 0.0): sensitivity,
        (1.0, 0.0): 1 - sensitivity,
    }
    q, s = np.array(list(counts)).T
    return flag_channel(q, s, weights=np.array(list(counts.values())))


def trained(is_safe, order, alpha, beta):
    """Log-ratios of a tabular policy: least squares of all pairs' margins on G/beta, with G written out."""
    answers = range(len(is_safe))
    rows, targets = [], []
    for i, j in itertools.combinations(answers, 2):
        rows.append([float(at == i) - float(at == j) for at in answers])
        p = order[i, j]
        forward = (3 * is_safe[i] - is_safe[j]) / 2 - alpha
        backward = (3 * is_safe[j] - is_safe[i]) / 2 - alpha
        targets.append((p * forward - (1 - p) * backward) / beta)
    return np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]


def mean_trained(truth, order, alpha, beta, error, flag=lambda v: v):
    """Mean of `trained` over all verdicts, which err independently in half of the worlds and together in the others."""
    wrong = [error[0] if s else error[1] for s in truth]
    total = 0.0
    for flips in itertools.product((False, True), repeat=len(truth)):
        alone = np.prod([e if flip else 1 - e for e, flip in zip(wrong, flips, strict=True)])
        # Together: one number in [0, 1) decides for all, so that an answer's flip implies that of a likelier one.
        together = max(0.0, min([e for e, f in zip(wrong, flips, strict=True) if f], default=1.0)
                       - max([e for e, f in zip(wrong, flips, strict=True) if not f], default=0.0))  # fmt: skip
        said = np.array([flag(float(bool(s) != flip)) for s, flip in zip(truth, flips, strict=True)])
        total = total + (alone + together) / 2 * trained(said, order, alpha, beta)
    return total


def order_of(count, seed):
    scores = np.random.default_rng(seed).normal(size=count)
    return 1 / (1 + np.exp(scores[None, :] - scores[:, None]))


@given(flags, rates, rates, st.floats(-0.5, 1.0), st.floats(0.05, 2.0), st.integers(0, 99))
def test_training_on_verdicts_is_clean_training_at_another_alpha_and_beta(truth, of_safe, of_unsafe, alpha, beta, seed):
    """Equation (3) of docs/concepts.md: alpha_eff = (alpha - a)/c and beta_eff = beta/c, not the reverse."""
    order, channel = order_of(len(truth), seed), channel_of(1 - of_unsafe, 1 - of_safe)
    assert (channel.a, channel.c) == pytest.approx((of_unsafe, 1 - of_unsafe - of_safe))
    noisy = mean_trained(truth, order, alpha, beta, (of_safe, of_unsafe))
    clean = trained(np.array(truth), order, channel.alpha_eff(alpha), channel.beta_eff(beta))
    np.testing.assert_allclose(noisy, clean, atol=1e-9 / beta)


@given(flags, rates, rates, st.floats(-0.5, 1.0), st.floats(0.05, 2.0), st.integers(0, 99))
def test_training_on_unbiased_flags_is_clean_training_on_average(truth, of_safe, of_unsafe, alpha, beta, seed):
    order, channel = order_of(len(truth), seed), channel_of(1 - of_unsafe, 1 - of_safe)
    noisy = mean_trained(
        truth, order, alpha, beta, (of_safe, of_unsafe), lambda v: float(channel.unbiased(np.array(v)))
    )
    np.testing.assert_allclose(noisy, trained(np.array(truth), order, alpha, beta), atol=1e-9 / beta)


@given(flags, st.floats(0.0, 0.45), st.integers(0, 99))
def test_training_on_unbiased_orders_is_clean_training_on_average(truth, error, seed):
    """Two answers and an order that is wrong with this probability, independently of the flags."""
    is_safe = np.array(truth[:2])
    first = float(order_of(2, seed)[0, 1] > 0.5)

    def of(p):
        return trained(is_safe, np.array([[0.5, p], [1 - p, 0.5]]), 0.5, 0.3)

    right, wrong = (float(unbiased_order(np.array(o), error)) for o in (first, 1 - first))
    np.testing.assert_allclose((1 - error) * of(right) + error * of(wrong), of(first), atol=1e-9)


def test_a_channel_by_hand():
    """Six safe answers, four called safe; four unsafe ones, one called safe."""
    q = np.array([1, 1, 1, 1, 0, 0, 1, 0, 0, 0], dtype=float)
    s = np.array([1] * 6 + [0] * 4, dtype=float)
    found = flag_channel(q, s)
    assert (found.a, found.c) == pytest.approx((1 / 4, 4 / 6 - 1 / 4))
    assert found.correlation.value == pytest.approx(np.corrcoef(q, s)[0, 1])
    assert found.information.value == pytest.approx(np.corrcoef(q, s)[0, 1] ** 2)
    assert found.alpha_eff(0.5) == pytest.approx((0.5 - 0.25) / (5 / 12))
    assert found.beta_eff(0.1) == pytest.approx(0.1 * 12 / 5)
    assert found.unbiased(q)[s == 1].mean() == pytest.approx(1)
    assert found.unbiased(q)[s == 0].mean() == pytest.approx(0, abs=1e-12)
    assert flag_channel(q[:6], s[:6]) is None
    assert flag_channel(q[:0], s[:0]) is None


def test_a_posterior_moves_alpha_although_it_is_the_best_flag_of_one_answer():
    """30 % errors: with 70 % safe answers alpha_eff is negative, so that the help of harmful answers is rewarded."""
    for share, expected in ((0.7, -0.03), (0.3, 1.03)):
        safe = share * 0.7 / (share * 0.7 + (1 - share) * 0.3)
        unsafe = share * 0.3 / (share * 0.3 + (1 - share) * 0.7)
        q = np.array([safe, unsafe, safe, unsafe])
        found = flag_channel(q, np.array([1.0, 1, 0, 0]), weights=np.array([0.7, 0.3, 0.3, 0.7]))
        (a, c) = 0.3 * safe + 0.7 * unsafe, 0.4 * (safe - unsafe)
        assert (found.a, found.c) == pytest.approx((a, c))
        assert found.alpha_eff(0.5) == pytest.approx((0.5 - a) / c)
        assert np.sign(found.alpha_eff(0.5) - 0.5) == np.sign(expected - 0.5)
    assert found.alpha_eff(0.5) > 1


def test_the_interval_of_the_correlation_covers_it_and_counts_clusters():
    covered = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        s = (random.random(200) < 0.7).astype(float)
        q = np.where(random.random(200) < 0.25, 1 - s, s)
        # Cov = c p (1 - p), c = .5; Var q of the mean .7 * .75 + .3 * .25 = .6.
        truth = 0.5 * 0.21 / np.sqrt(0.21 * 0.24)
        found = flag_channel(q, s).correlation
        covered += found.low <= truth <= found.high
    assert covered >= 54
    twice = flag_channel(np.repeat(q, 2), np.repeat(s, 2), [at // 2 for at in range(400)]).correlation
    assert twice.high - twice.low == pytest.approx(found.high - found.low, rel=0.1)


def test_at_chance_nothing_is_known():
    random = np.random.default_rng(0)
    q, s = (random.random((2, 300)) < 0.5).astype(float)
    found = flag_channel(q, s)
    assert found.information.low == 0
    constant = flag_channel(np.ones(20), np.arange(20) % 2.0)
    assert (constant.c, constant.information.value, constant.information.low) == (0, 0, 0)


def test_weights_say_what_holds_for_the_rest_whatever_chose_the_queue():
    """A queue of the 40 % of answers with the least certain verdicts, and 10 % at random: means over 400 draws."""
    random = np.random.default_rng(1)
    s = (random.random(1000) < 0.6).astype(float)
    hard = random.random(1000) < 0.4
    q = np.where(random.random(1000) < np.where(hard, 0.45, 0.05), 1 - s, s)
    naive, weighted = [], []
    for draw in range(400):
        is_random = np.zeros(1000, dtype=bool)
        is_random[np.random.default_rng(draw).permutation(1000)[:100]] = True
        known = is_random | hard
        weights = rest_weights(is_random, known)
        assert weights[~known].tolist() == [0.0] * int((~known).sum())
        wrong = np.where(known, np.abs(q - s), np.nan)
        naive.append(np.nanmean(wrong))
        weighted.append(np.nansum(wrong * weights) / weights.sum())
    truth = np.abs(q - s)[~hard].mean()
    assert np.mean(weighted) == pytest.approx(truth, abs=0.01)
    assert np.mean(naive) > 2 * truth


def test_a_weighted_share_is_that_of_the_rest_and_its_interval_covers_it():
    """The queue took 40 % of the answers, where 45 % are wrong; 20 % of the others are."""
    random = np.random.default_rng(2)
    hard = random.random(1000) < 0.4
    values, covered = [], 0
    for draw in range(200):
        random = np.random.default_rng(draw)
        wrong = (random.random(1000) < np.where(hard, 0.45, 0.2)).astype(float)
        is_random = np.isin(np.arange(1000), random.permutation(1000)[:200])
        weights = rest_weights(is_random, is_random | hard)
        used = np.flatnonzero(weights)
        found = weighted_rate(wrong[used], weights[used])
        values.append(found.value)
        covered += found.low <= wrong[~(is_random | hard)].mean() <= found.high
    assert np.mean(values) == pytest.approx(0.2, abs=0.02)
    assert covered >= 180


def test_a_weighted_share_with_equal_weights_is_the_mean_with_wilson_s_interval_or_a_wider_one():
    wrong = np.array([1.0] * 3 + [0.0] * 27)
    found, plain = weighted_rate(wrong, np.full(30, 4.0)), wilson(3, 30)
    assert (found.value, found.n) == (pytest.approx(0.1), 30)
    assert found.low <= plain.low
    assert found.high >= plain.high
    assert weighted_rate(np.zeros(30), np.full(30, 4.0)).high == pytest.approx(wilson(0, 30).high)
    # The two answers to a prompt are one item.
    assert weighted_rate(np.zeros(30), np.full(30, 4.0), [at // 2 for at in range(30)]).high == wilson(0, 15).high


def test_weights_that_leave_nothing_or_an_impossible_estimate_say_nothing():
    """Sums of 1e-14 are rounding, and correlations beyond 1 come from a sample that can't tell.

    A share below 0 (here -1.5) is 0 with a wide interval.
    """
    weights = np.array([0.1] * 10 + [-1.0 + 1e-14])
    assert 0 < weights.sum() < 1e-13
    q, s = np.arange(11) % 2.0, np.arange(11) // 2 % 2.0
    assert weighted_rate(q, weights) is None
    assert flag_channel(q, s, weights=weights) is None
    heavy = np.array([1.0] * 10 + [-3.0, -3.0])
    found = weighted_rate(np.array([0.0] * 10 + [1.0, 1.0]), heavy)
    assert (found.value, found.low, found.high) == (0, 0, 1)
    q, s = np.array([1.0, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0, 1]), np.array([1.0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0])
    assert flag_channel(q, s, weights=heavy) is None
    assert flag_channel(q, s) is not None


def test_a_class_mean_that_weights_bring_beyond_the_flags_is_the_largest_one():
    """All but one of four safe answers are called safe; the weights take the wrong one away more than once."""
    q, s = np.array([1.0, 1, 1, 0, 0, 0, 1, 0]), np.array([1.0, 1, 1, 1, 0, 0, 0, 0])
    found = flag_channel(q, s, weights=np.array([2.0, 2, 2, -0.5, 2, 2, 2, 2]))
    assert (found.a, found.a + found.c) == (pytest.approx(0.25), 1.0)


def test_the_doubly_robust_flag_is_right_whatever_the_judge_misses():
    """A judge that calls every answer of one kind safe: the mean over draws is the truth, text by text."""
    s = np.array([1.0, 0, 0, 1, 0, 1])
    q = np.array([0.9, 0.1, 0.95, 0.95, 0.95, 0.9])
    drawn = [np.isin(np.arange(6), chosen) for chosen in itertools.combinations(range(6), 2)]
    mean = np.mean([doubly_robust(q, s, is_random) for is_random in drawn], axis=0)
    np.testing.assert_allclose(mean, s, atol=1e-12)
    # The same by a regression of q on s is wrong: no channel describes this judge.
    assert not np.allclose(flag_channel(q, s).unbiased(q), s, atol=0.3)
    # In sample, q equals the labels where it saw them, and nothing is corrected.
    seen = np.where(drawn[0], s, q)
    np.testing.assert_allclose(doubly_robust(seen, s, drawn[0]), seen)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_paper_s_label_on_unbiased_flags(share):
    """The same with `GlobalPreference`: the expectation over flags of a mixed pair is T, whatever the base rate."""
    channel = channel_of(0.8, 0.9)
    one, zero = channel.unbiased(np.array([1.0, 0.0]))
    mean = 0.0
    for v, w in itertools.product((0, 1), repeat=2):
        chance = (0.9 if v else 0.1) * (0.2 if w else 0.8)
        mean += chance * float(GlobalPreference().target(one if v else zero, one if w else zero, share))
    assert mean == pytest.approx(float(GlobalPreference().target(1.0, 0.0, share)), abs=1e-6)


def test_the_error_of_orders_is_that_of_decided_ones():
    """A tenth of the judge's orders is wrong, and people are undecided about three in ten or only lean to one side."""
    random = np.random.default_rng(0)
    truth = (random.random(50_000) < 0.7).astype(float)
    verdicts = np.where(random.random(len(truth)) < 0.1, 1 - truth, truth)
    undecided = np.where(random.random(len(truth)) < 0.3, 0.5, truth)
    assert order_error(verdicts, undecided).value == pytest.approx(0.1, abs=0.005)
    # .75 is what people say who are right in three of four such pairs.
    leaning = np.where(random.random(len(truth)) < 0.75, truth, 1 - truth) * 0.5 + 0.25
    assert order_error(verdicts, leaning).value == pytest.approx(0.1, abs=0.01)
    # Turned around, pairs say the same.
    assert order_error(1 - verdicts, 1 - undecided) == order_error(verdicts, undecided)
    assert order_error(verdicts, np.full(len(truth), 0.5)) is None
    # Without undecided pairs it is the share of wrong ones.
    assert order_error(verdicts, truth).value == pytest.approx(float(np.abs(verdicts - truth).mean()))


def test_the_interval_of_the_error_of_orders_covers():
    covered = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        truth = np.ones(200)
        verdicts = np.where(random.random(200) < 0.15, 0.0, 1.0)
        found = order_error(verdicts, np.where(random.random(200) < 0.3, 0.5, truth))
        covered += found.low <= 0.15 <= found.high
    assert covered >= 276
