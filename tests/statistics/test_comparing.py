"""Paired tests against closed forms, families of tests against published vectors, power by simulation."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bfpo.statistics.comparing import (
    benjamini_hochberg,
    compare_pairs,
    holm,
    mcnemar,
    minimum_detectable_effect,
    t_test,
)
from bfpo.statistics.intervals import wilson


# By hand: all of 6 one way is 2/2^6; 1 of 10 is 2 (1 + 10)/2^10; statsmodels 0.15.0 says .143463134765625 of (12, 5).
@pytest.mark.parametrize(
    ("counts", "p"),
    [
        ((6, 0), 2 / 64),
        ((0, 5), 2 / 32),
        ((1, 9), 22 / 1024),
        ((12, 5), 0.143463134765625),
        ((3, 3), 1.0),
        ((0, 0), 1.0),
    ],
)
def test_mcnemar_is_exact(counts, p):
    assert mcnemar(*counts) == pytest.approx(p, rel=1e-14)
    assert mcnemar(*reversed(counts)) == mcnemar(*counts)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_test(b, c):
    expected = scipy.stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(min(1.0, expected), rel=1e-9)


def test_six_discordant_items_are_the_fewest_that_show_anything():
    assert mcnemar(0, 5) > 0.05 > mcnemar(0, 6)


def test_soft_pairs_are_students_paired_test():
    generator = np.random.default_rng(3)
    first, second = generator.beta(2, 2, size=40), generator.beta(2, 3, size=40)
    found = compare_pairs(first.tolist(), second.tolist())
    expected = scipy.stats.ttest_rel(first, second)
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.difference.low, found.difference.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.correlation == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert found.discordant is None
    error = np.std(first - second, ddof=1) / math.sqrt(40)
    assert found.detectable == pytest.approx((scipy.stats.norm.ppf(0.975) + scipy.stats.norm.ppf(0.8)) * error)


def test_binary_pairs_by_hand():
    # 10 both, 7 only the first, 2 only the second, 6 neither.
    first, second = [1] * 17 + [0] * 8, [1] * 10 + [0] * 7 + [1] * 2 + [0] * 6
    found = compare_pairs(first, second)
    assert found.discordant == (7, 2)
    assert found.p == mcnemar(7, 2)
    assert found.difference.value == pytest.approx(5 / 25)
    variance = (9 - 25 * 0.2**2) / 24
    half = scipy.stats.t.ppf(0.975, 24) * math.sqrt(variance / 25)
    assert found.difference.high == pytest.approx(0.2 + half)


def test_clusters_take_mcnemars_place():
    first, second = [1.0] * 8 + [0.0] * 2, [0.0] * 8 + [0.0] * 2
    alone, clustered = compare_pairs(first, second), compare_pairs(first, second, [0] * 8 + [1, 2])
    assert alone.p == 2 / 2**8
    assert clustered.p > 0.05  # eight items of one cluster are one observation
    assert clustered.discordant == (8, 0)


def test_no_difference_at_all_is_not_certainty():
    found = compare_pairs([1.0, 0.0] * 20, [1.0, 0.0] * 20)
    assert (found.p, found.difference.value) == (1.0, 0.0)
    assert found.difference.high == -found.difference.low == wilson(0, 40).high


def test_t_test_at_the_edges():
    assert (t_test(0.0, 0.0, 5), t_test(1.0, 0.0, 5)) == (1.0, 0.0)
    assert t_test(2.0, 1.0, 10) == pytest.approx(2 * scipy.stats.t.sf(2.0, 10), rel=1e-9)


# The example of Benjamini and Hochberg (1995, p. 294): 15 hypotheses, of which their procedure rejects four at .05,
# while Holm's (as Bonferroni's) rejects three. Adjusted values: statsmodels 0.15.0, multipletests.
THROMBOLYSIS = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0,
]  # fmt: skip
BY_HOLM = [0.0015, 0.0056, 0.0247, 0.114, 0.2211, 0.278, 0.278, 0.278, 0.3213, 1, 1, 1, 1, 1, 1]
BY_BH = [
    0.0015, 0.003, 0.0095, 0.035625, 0.0603, 0.06385714, 0.06385714, 0.0645, 0.0765, 0.486, 0.58118182, 0.714875,
    0.75323077, 0.81321429, 1.0,
]  # fmt: skip
# The table in the README of github.com/dirkschumacher/PValueAdjust.jl.
SHORT, SHORT_BY_BH = [0.05, 0.03, 0.01, 0.5], [0.0666667, 0.06, 0.04, 0.5]


def test_families_of_tests_have_the_published_values():
    assert holm(THROMBOLYSIS) == pytest.approx(BY_HOLM, abs=1e-8)
    assert benjamini_hochberg(THROMBOLYSIS) == pytest.approx(BY_BH, abs=1e-8)
    assert sum(p < 0.05 for p in holm(THROMBOLYSIS)) == 3
    assert sum(p < 0.05 for p in benjamini_hochberg(THROMBOLYSIS)) == 4
    assert benjamini_hochberg(SHORT) == pytest.approx(SHORT_BY_BH, abs=1e-7)
    assert holm([0.01, 0.04]) == [0.02, 0.04]
    assert holm([]) == benjamini_hochberg([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.randoms())
def test_adjusting_is_scipys_and_heeds_no_order(p_values, random):
    assert benjamini_hochberg(p_values) == pytest.approx(scipy.stats.false_discovery_control(p_values).tolist())
    shuffled = list(range(len(p_values)))
    random.shuffle(shuffled)
    for adjust in (holm, benjamini_hochberg):
        plain, again = adjust(p_values), adjust([p_values[at] for at in shuffled])
        assert again == pytest.approx([plain[at] for at in shuffled])
        assert all(p <= q <= 1 for p, q in zip(p_values, plain, strict=True))


def test_what_is_called_detectable_is_detected_in_80_percent():
    # Two models with rates of about .3 that agree as correlation .5 has it, and differ by the detectable effect.
    n, rate, correlation = 400, 0.3, 0.5
    effect = minimum_detectable_effect(n, rate, correlation)
    generator = np.random.default_rng(5)
    both = rate * rate + correlation * rate * (1 - rate)
    apart = rate - both
    cells = [both, apart + effect / 2, apart - effect / 2, 1 - 2 * rate + both]  # both, first, second, neither
    counts = generator.multinomial(n, cells, size=3000)
    errors = np.sqrt((counts[:, 1] + counts[:, 2] - (counts[:, 1] - counts[:, 2]) ** 2 / n) / (n - 1) / n)
    found = np.abs((counts[:, 1] - counts[:, 2]) / n) > 1.96 * errors
    assert found.mean() == pytest.approx(0.8, abs=0.04)


# n for 80 % power at correlation 1/2 and a rate of .28 (.30 against .25): 156, 624 and 3,901 for 10, 5 and 2 points.
@pytest.mark.parametrize(("n", "effect"), [(156, 0.10), (624, 0.05), (3901, 0.02)])
def test_detectable_effects_of_a_power_table(n, effect):
    assert minimum_detectable_effect(n, 0.275, 0.5) == pytest.approx(effect, rel=0.01)
