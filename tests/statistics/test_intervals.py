"""Intervals against published values, exact coverage and closed forms."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.statistics.intervals import mean_interval, paired_difference, t_quantile, wilson


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


@pytest.mark.parametrize("p", [0.01, 0.05, 0.3, 0.5])
@pytest.mark.parametrize("n", [100, 500, 1000])
def test_wilson_covers_exactly_as_often_as_it_should(p, n):
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)]
    mass = [math.exp(log + k * math.log(p) + (n - k) * math.log(1 - p)) for k, log in enumerate(logs)]
    covered = sum(m for k, m in enumerate(mass) if wilson(k, n).low <= p <= wilson(k, n).high)
    assert 0.91 <= covered <= 0.98


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.7062), (2, 4.30265), (5, 2.57058), (10, 2.22814), (30, 2.04227), (499, 1.96473)]
)
def test_t_quantile_has_the_tabled_values(degrees, quantile):
    assert t_quantile(0.975, degrees) == pytest.approx(quantile, rel=2e-6)
    assert t_quantile(0.025, degrees) == pytest.approx(-quantile, rel=2e-6)


def test_mean_interval_of_a_worked_example():
    estimate = mean_interval([4.0, 6.0, 8.0, 10.0])
    half = 3.182446 * math.sqrt(20 / 3) / 2
    assert (estimate.value, estimate.n) == (7.0, 4)
    assert (estimate.low, estimate.high) == (pytest.approx(7 - half, rel=1e-6), pytest.approx(7 + half, rel=1e-6))


def test_t_interval_covers_the_mean_of_skewed_scores():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(1500):
        estimate = mean_interval(generator.beta(0.6, 0.3, size=200).tolist())
        hits += estimate.low <= 0.6 / 0.9 <= estimate.high
    assert 0.92 <= hits / 1500 <= 0.98


def test_pairing_removes_what_both_share():
    generator = np.random.default_rng(1)
    shared = generator.normal(size=300)
    first, second = shared + 0.1, shared + generator.normal(scale=0.01, size=300)
    paired = paired_difference(first.tolist(), second.tolist())
    alone = mean_interval(first.tolist())
    assert paired.low <= 0.1 <= paired.high
    assert (paired.high - paired.low) < 0.05 * (alone.high - alone.low)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_rates_are_refused(successes, n):
    with pytest.raises(ValueError, match="a rate needs"):
        wilson(successes, n)
    with pytest.raises(ValueError, match="at least 2"):
        mean_interval([1.0])
