"""Intervals against published values, exact coverage, closed forms and other packages' numbers."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bfpo.statistics.intervals import (
    cluster_codes,
    mean_interval,
    paired_difference,
    rate_interval,
    standard_error,
    t_distribution,
    t_quantile,
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


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 29, 30, 499, 5000])
def test_students_t_is_scipys(degrees):
    for t in (-3.1, -0.4, 0.0, 1.2, 2.6, 4.0):
        assert t_distribution(t, degrees) == pytest.approx(scipy.stats.t.cdf(t, degrees), abs=1e-12)
    for probability in (0.025, 0.9, 0.975):
        assert t_quantile(probability, degrees) == pytest.approx(scipy.stats.t.ppf(probability, degrees), rel=1e-9)


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


@pytest.mark.parametrize(("rate", "count"), [(0.5, 40), (0.1, 60), (0.02, 100)])
def test_clustered_rates_are_covered(rate, count):
    # Beta-binomial: an answer's chance is its cluster's own, with an intra-cluster correlation of 1/3.
    def draw(generator):
        clusters = np.repeat(np.arange(count), 4)
        chances = generator.beta(2 * rate, 2 * (1 - rate), size=count)[clusters]
        return (generator.random(len(clusters)) < chances).astype(float).tolist(), clusters.tolist()

    assert 0.91 <= coverage(draw, rate_interval, rate, 2000, 2) <= 0.99


def test_none_of_a_few_clusters_is_not_none_of_many_items():
    clusters = [item // 10 for item in range(200)]
    estimate = rate_interval([0.0] * 200, clusters)
    assert (estimate.value, estimate.low, estimate.n) == (0.0, 0.0, 200)
    assert estimate.high > wilson(0, 20).high > wilson(0, 200).high
    assert rate_interval([1.0] * 200, clusters).low == pytest.approx(1 - estimate.high)
    assert (rate_interval([1.0, 0.0], ["a", "a"]).low, rate_interval([1.0, 0.0], ["a", "a"]).high) == (0.0, 1.0)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60), st.integers(1, 8))
def test_a_rates_interval_holds_it_and_stays_within_0_and_1(values, size):
    estimate = rate_interval(values, [at // size for at in range(len(values))])
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high


def test_pairing_removes_what_both_share():
    generator = np.random.default_rng(1)
    shared = generator.normal(size=300)
    first, second = shared + 0.1, shared + generator.normal(scale=0.01, size=300)
    paired = paired_difference(first.tolist(), second.tolist())
    alone = mean_interval(first.tolist())
    assert paired.low <= 0.1 <= paired.high
    assert (paired.high - paired.low) < 0.05 * (alone.high - alone.low)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_figures_are_refused(successes, n):
    with pytest.raises(ValueError, match="a rate needs"):
        wilson(successes, n)
    with pytest.raises(ValueError, match="at least 2"):
        mean_interval([1.0])
    with pytest.raises(ValueError, match="at least 2"):
        mean_interval([1.0, 2.0], ["a", "a"])
    with pytest.raises(ValueError, match="2 values have 1 clusters"):
        mean_interval([1.0, 2.0], ["a"])
