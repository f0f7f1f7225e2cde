"""Intervals against published values, exact coverage, closed forms and other packages' numbers."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.statistics.intervals import (
    Estimate,
    cluster_codes,
    items_to_show,
    mean_interval,
    rate_interval,
    standard_error,
    weighted_mean,
    wilson,
)


# Newcombe (Statistics in Medicine 17, 1998, p. 857), table I, method 3.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_has_the_published_values(successes, n, low, high):
    estimate = wilson(successes, n)
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 500), st.data())
def test_wilson_solves_the_score_equation_and_is_symmetric(n, data):
    k = data.draw(st.integers(0, n))
    estimate, mirrored = wilson(k, n), wilson(n - k, n)
    z = NormalDist().inv_cdf(0.975)
    for bound in (estimate.low, estimate.high):
        if 0 < bound < 1:
            assert abs(k / n - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), rel=1e-6)
    assert estimate.low == pytest.approx(1 - mirrored.high, abs=1e-12)
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.low < estimate.high


@given(st.floats(0.001, 0.9))
def test_so_many_items_without_a_success_show_a_limit_and_no_fewer(limit):
    n = items_to_show(limit)
    assert wilson(0, n).high <= limit * (1 + 1e-9)
    assert n == 1 or wilson(0, n - 1).high > limit


def test_wilson_covers_exactly_as_often_as_it_should():
    # Summed over the binomial distribution, not simulated. Every p in steps of .0005; coverage jumps between any two
    # grid points, but a grid ten times as fine changes the extremes by less than .001.
    rates = np.arange(0.005, 0.50025, 0.0005)
    for n in range(100, 1001, 50):
        k = np.arange(n + 1)
        bounds = [wilson(int(successes), n) for successes in k]
        low, high = np.array([b.low for b in bounds]), np.array([b.high for b in bounds])
        logs = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k])
        for p in rates:
            mass = np.exp(logs + k * math.log(p) + (n - k) * math.log1p(-p))
            covered = mass[(low <= p) & (p <= high)].sum()
            assert covered >= 0.89, (n, p, covered)
            assert p < 0.01 - 1e-9 or 0.91 <= covered <= 0.98, (n, p, covered)


def test_mean_interval_of_a_worked_example():
    estimate = mean_interval([4.0, 6.0, 8.0, 10.0])
    half = 3.182446 * math.sqrt(20 / 3) / 2
    assert (estimate.value, estimate.n) == (7.0, 4)
    assert (estimate.low, estimate.high) == (pytest.approx(7 - half, rel=1e-6), pytest.approx(7 + half, rel=1e-6))


SCORES = [0.9, 0.8, 0.95, 0.2, 0.3, 0.1, 0.5, 0.6, 0.55, 0.4, 1.0, 0.0, 0.7, 0.65, 0.35, 0.45]
CLUSTERS = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 5, 6, 6, 7, 7]


def test_cluster_errors_are_those_of_statsmodels():
    # statsmodels 0.15.0: OLS(SCORES, ones).fit(cov_type="cluster", cov_kwds={"groups": CLUSTERS}, use_t=True).
    estimate = mean_interval(SCORES, CLUSTERS)
    assert standard_error(np.array(SCORES), np.array(CLUSTERS)) == pytest.approx(0.10101500783564653, rel=1e-12)
    assert estimate.low == pytest.approx(0.28926246, abs=1e-8)
    assert estimate.high == pytest.approx(0.76698754, abs=1e-8)


def test_cluster_errors_are_those_of_inspect():
    # inspect_ai's stderr(cluster=...), github.com/UKGovernmentBEIS/inspect_ai, src/inspect_ai/scorer/_metrics/std.py at
    # 0814436: the sum over clusters of all products of deviations, times C/(C - 1), its root over n.
    values, clusters = np.array(SCORES), np.array(CLUSTERS)
    products = [
        np.outer(values[clusters == c] - values.mean(), values[clusters == c] - values.mean()) for c in range(8)
    ]
    expected = math.sqrt(sum(product.sum() for product in products) * 8 / 7) / len(values)
    assert standard_error(values, clusters) == pytest.approx(expected, rel=1e-12)


def test_clusters_of_one_are_no_clusters():
    values = [0.2, 0.4, 0.9, 1.0, 0.3]
    assert mean_interval(values, list("abcde")) == mean_interval(values)
    assert rate_interval([1, 0, 0, 1, 1], list("abcde")) == wilson(3, 5)
    assert cluster_codes(["x", "y", "x"], 3).tolist() == [0, 1, 0]


def coverage(draw, interval, truth, trials, seed):
    generator = np.random.default_rng(seed)
    estimates = [interval(*draw(generator)) for _ in range(trials)]
    return sum(estimate.low <= truth <= estimate.high for estimate in estimates) / trials


@pytest.mark.parametrize(("a", "b", "n"), [(0.6, 0.3, 200), (0.5, 0.5, 30), (2.0, 5.0, 60)])
def test_t_intervals_cover_the_mean_of_beta_scores(a, b, n):
    found = coverage(lambda generator: (generator.beta(a, b, size=n).tolist(),), mean_interval, a / (a + b), 2000, 0)
    assert 0.92 <= found <= 0.98


@pytest.mark.parametrize(("count", "sizes"), [(30, "equal"), (30, "unequal"), (120, "unequal")])
def test_cluster_intervals_cover_the_mean_of_beta_scores(count, sizes):
    # Each cluster has a mean of its own, Beta(2, 2) about 1/2; its scores are Beta about that mean.
    def draw(generator):
        size = generator.integers(1, 9, size=count) if sizes == "unequal" else np.full(count, 5)
        clusters = np.repeat(np.arange(count), size)
        means = generator.beta(2, 2, size=count)[clusters]
        return generator.beta(4 * means, 4 * (1 - means)).tolist(), clusters.tolist()

    assert 0.92 <= coverage(draw, mean_interval, 0.5, 2000, 1) <= 0.98
    naive = coverage(lambda generator: draw(generator)[:1], mean_interval, 0.5, 500, 1)
    assert naive < 0.85  # what clusters are for


# Beta-binomial: an answer's chance is its cluster's own. Settings with few clusters, with alike ones and at the border.
@pytest.mark.parametrize(
    ("rate", "count", "correlation"),
    [(0.5, 40, 1 / 3), (0.1, 60, 1 / 3), (0.02, 100, 1 / 3), (0.2, 6, 0.1), (0.05, 15, 1), (0.01, 50, 1), (0.3, 50, 0)],
)
def test_clustered_rates_are_covered(rate, count, correlation):
    def draw(generator):
        clusters = np.repeat(np.arange(count), 4)
        if correlation in (0, 1):
            chances = np.full(count, rate) if correlation == 0 else (generator.random(count) < rate).astype(float)
        else:
            size = 1 / correlation - 1
            chances = generator.beta(size * rate, size * (1 - rate), size=count)
        return (generator.random(len(clusters)) < chances[clusters]).astype(float).tolist(), clusters.tolist()

    # With alike clusters it is Wilson's interval of as many items, whose own coverage is .91 for 1 % of 50.
    assert coverage(draw, rate_interval, rate, 1000, 2) >= 0.91


@pytest.mark.parametrize(("a", "b", "n"), [(0.6, 0.3, 200), (0.5, 0.5, 30), (2.0, 5.0, 60), (9.0, 0.2, 40)])
def test_rates_of_soft_scores_are_covered(a, b, n):
    def draw(generator):
        return (generator.beta(a, b, size=n).tolist(),)

    assert 0.92 <= coverage(draw, rate_interval, a / (a + b), 1000, 0) <= 0.985


def test_none_of_a_few_clusters_is_not_none_of_many_items():
    clusters = [item // 10 for item in range(200)]
    estimate = rate_interval([0.0] * 200, clusters)
    assert (estimate.value, estimate.low, estimate.n) == (0.0, 0.0, 200)
    assert estimate.high == pytest.approx(wilson(0, 20).high)
    assert rate_interval([1.0] * 200, clusters).low == pytest.approx(1 - estimate.high)
    assert (rate_interval([1.0, 0.0], ["a", "a"]).low, rate_interval([1.0, 0.0], ["a", "a"]).high) == (0.0, 1.0)


def test_fifty_of_fifty_answers_to_two_prompts_are_two_of_two():
    assert rate_interval([1.0] * 50, [0] * 25 + [1] * 25).low == pytest.approx(wilson(2, 2).low)


def test_a_perfect_model_never_looks_worse_than_another():
    # 0 of 1,000 in 100 clusters had an upper bound of .038, and 1 of 1,000 of .006.
    clusters = [item // 10 for item in range(1000)]
    highs = []
    for hits in range(60):
        values = [0.0] * 1000
        for at in range(hits):
            values[10 * at] = 1.0
        highs.append(rate_interval(values, clusters).high)
    assert highs == sorted(highs)
    assert highs[0] == pytest.approx(wilson(0, 100).high)
    together = rate_interval([1.0] * 10 + [0.0] * 990, clusters)
    assert together.high >= rate_interval([1.0] * 5 + [0.0] * 995, clusters).high


@given(st.integers(2, 8), st.integers(1, 6), st.data())
def test_one_more_hit_never_lowers_a_bound(count, size, data):
    values = data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=count * size, max_size=count * size))
    clusters = [at // size for at in range(count * size)]
    at = data.draw(st.integers(0, count * size - 1))
    fewer, more = ([*values[:at], value, *values[at + 1 :]] for value in (0.0, 1.0))
    less, least = rate_interval(more, clusters), rate_interval(fewer, clusters)
    # Where hits move between clusters of a handful of items the bounds agree to a few thousandths.
    assert less.high >= least.high - 0.005
    assert less.low >= least.low - 0.005


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60), st.integers(1, 8))
def test_a_rates_interval_holds_it_and_stays_within_0_and_1(values, size):
    estimate = rate_interval(values, [at // size for at in range(len(values))])
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high


def test_equal_soft_scores_are_not_certainty():
    estimate = rate_interval([0.5] * 20)
    assert estimate.low == pytest.approx(1 - estimate.high)
    assert 0.01 < estimate.high - 0.5 < 0.1


def test_a_weighted_mean_has_the_error_of_the_weighted_mean():
    generator = np.random.default_rng(2)
    scores = [generator.beta(2, b, size=n) for b, n in ((2, 40), (3, 200), (5, 1000))]
    found = weighted_mean([rate_interval(values.tolist()) for values in scores], [2, 1, 1])
    means = [values.mean() for values in scores]
    errors = [values.std(ddof=1) / math.sqrt(len(values)) for values in scores]
    assert found.value == pytest.approx(means[0] / 2 + means[1] / 4 + means[2] / 4)
    half = 1.96 * math.hypot(errors[0] / 2, errors[1] / 4, errors[2] / 4)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)
    assert found.n == 1240


def test_a_weighted_mean_of_ones_is_not_certainty():
    # The bootstrap's interval was [1, 1].
    found = weighted_mean([rate_interval([1.0] * 30), rate_interval([1.0] * 50)])
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(1 - math.hypot(1 - wilson(30, 30).low, 1 - wilson(50, 50).low) / 2)


def test_the_weighted_means_interval_covers_it():
    generator, hits = np.random.default_rng(4), 0
    for _ in range(1000):
        tasks = [rate_interval(generator.beta(a, 1, size=n).tolist()) for a, n in ((1, 40), (2, 90))]
        found = weighted_mean(tasks)
        hits += found.low <= (1 / 2 + 2 / 3) / 2 <= found.high
    assert 0.925 <= hits / 1000 <= 0.975


@pytest.mark.parametrize(
    ("low", "high", "digits"), [(-0.004, 0.012, 3), (0.0, 0.01, 2), (0.0004, 0.5, 4), (0.2, 0.3, 2), (-1e-9, 0.5, 6)]
)
def test_enough_digits_show_on_which_side_of_0_an_end_lies(low, high, digits):
    assert Estimate(0.005, low, high, 10).digits() == digits


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_figures_are_refused(successes, n):
    with pytest.raises(ValueError, match="a rate needs"):
        wilson(successes, n)
    with pytest.raises(ValueError, match="at least 2"):
        mean_interval([1.0])
    with pytest.raises(ValueError, match="at least 2"):
        mean_interval([1.0, 2.0], ["a", "a"])
    with pytest.raises(ValueError, match="at least one value"):
        rate_interval([])
    for wrong in ([math.nan, 1.0, 0.5], [3.0, 0.2, 0.4], [-0.01, 0.2]):
        with pytest.raises(ValueError, match=r"a rate needs values in \[0, 1\], not (nan|3|-0.01)"):
            rate_interval(wrong)
    assert rate_interval([1 + 1e-12, -1e-12]).value == 0.5  # rounding is none
    with pytest.raises(ValueError, match="2 values have 1 clusters"):
        mean_interval([1.0, 2.0], ["a"])
