"""Paired tests against closed forms, multiple testing against published values, power by simulation."""

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
    mcnemar_interval,
    minimum_detectable_effect,
)
from bfpo.statistics.intervals import wilson


# By hand: all of 6 one way is 2/2^6; 1 of 10 is 2 (1 + 10)/2^10; statsmodels 0.15.0 has .143463134765625 for (12, 5).
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
    assert found.difference == mcnemar_interval(7, 2, 25)


def test_clusters_take_mcnemars_place():
    first, second = [1.0] * 8 + [0.0] * 2, [0.0] * 8 + [0.0] * 2
    alone, clustered = compare_pairs(first, second), compare_pairs(first, second, [0] * 8 + [1, 2])
    assert alone.p == 2 / 2**8
    assert clustered.p > 0.05  # eight items of one cluster are one observation
    assert clustered.discordant == (8, 0)


def test_no_difference_at_all_is_not_certainty():
    found = compare_pairs([1.0, 0.0] * 20, [1.0, 0.0] * 20)
    assert (found.p, found.difference.value) == (1.0, 0.0)
    assert found.difference.high == pytest.approx(wilson(0, 40).high)
    assert found.difference.low == pytest.approx(-wilson(0, 40).high)


def test_the_same_difference_everywhere_is_not_certainty():
    # Both had an interval of width 0 and p = 0.
    soft, clustered = compare_pairs([0.3] * 8, [0.1] * 8), compare_pairs([1.0] * 8, [0.0] * 8, [0, 0, 1, 1, 2, 2, 3, 3])
    for found in (soft, clustered):
        assert found.difference.low < found.difference.value
        assert found.p > 0.05


@pytest.mark.parametrize("scale", [10.0, 1e6])
def test_a_constant_difference_says_the_same_in_every_unit(scale):
    """Of 20 lengths, a constant difference of 1 had p = .147, and one of 100 p = 2e-5."""
    lengths = np.arange(2.0, 22.0)
    plain, scaled = (compare_pairs(unit * (lengths + 5), unit * lengths) for unit in (1.0, scale))
    assert scaled.p == pytest.approx(plain.p)
    assert scaled.difference.high == pytest.approx(scale * plain.difference.high)
    assert plain.difference.high - 5 == pytest.approx(2.093 * 24 * math.sqrt(wilson(0, 20).high / 20), rel=1e-3)
    alike = compare_pairs([7.0 * scale] * 4, [7.0 * scale] * 4)
    assert (alike.p, alike.difference.low, alike.difference.high) == (1.0, 0.0, 0.0)


def likeliest(difference, only_first, only_second, n):
    """The largest log-likelihood of discordant counts given the difference of the rates, on a grid."""
    second = np.linspace(max(0.0, -difference), (1 - difference) / 2, 200_001)[1:-1]
    cells = (second + difference, second, 1 - 2 * second - difference)
    counts = (only_first, only_second, n - only_first - only_second)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = sum(np.where(count > 0, count * np.log(cell), 0.0) for count, cell in zip(counts, cells, strict=True))
    return second[np.nanargmax(logs)]


def test_the_score_interval_is_tangos():
    # Each end has the score statistic that the exact test requires, here by the likeliest cells on a grid.
    for counts, n in (((30, 12), 160), ((9, 2), 40)):
        found = mcnemar_interval(*counts, n)
        statistics = []
        for end in (found.low, found.high):
            second = likeliest(end, *counts, n)
            variance = n * (2 * second + end * (1 - end))
            statistics.append(abs(counts[0] - counts[1] - n * end) / math.sqrt(variance))
        assert statistics[0] == pytest.approx(statistics[1], rel=1e-4)
        assert 1.9599 < statistics[0] < 2.5


def test_tangos_published_interval():
    # Airway hyper-responsiveness in 21 children, 1 and 7 discordant (Bentur et al. 2009): Tango's interval is -.517 to
    # -.026 (Fagerland, Lydersen and Laake, Statistics in Medicine 33, 2014, p. 2850), the exact p is .070.
    found = mcnemar_interval(1, 7, 21)
    assert mcnemar(1, 7) == pytest.approx(0.0703125)
    assert found.low < -0.517
    assert found.high > 0  # the exact test keeps 0, so the interval reaches a little further than Tango's own


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 100))
def test_an_interval_excludes_0_exactly_where_p_is_small(only_first, only_second, rest):
    n = max(2, only_first + only_second + rest)
    found = mcnemar_interval(only_first, only_second, n)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert (found.low > 0 or found.high < 0) == (mcnemar(only_first, only_second) < 0.05)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=4, max_size=40), st.integers(1, 3))
def test_soft_and_clustered_intervals_exclude_0_exactly_where_p_is_small(pairs, size):
    first, second = zip(*pairs, strict=True)
    found = compare_pairs(first, second, [at // size for at in range(len(pairs))])
    if abs(found.p - 0.05) > 1e-9:
        assert (found.difference.low > 0 or found.difference.high < 0) == (found.p < 0.05)
    assert -1 <= found.difference.low <= found.difference.high <= 1


def test_paired_intervals_cover_the_difference():
    generator, hits, trials = np.random.default_rng(6), 0, 2000
    for cells in ((0.04, 0.02), (0.25, 0.1), (0.01, 0.01), (0.3, 0.0)):
        for _ in range(trials // 4):
            both = generator.multinomial(120, [*cells, 1 - sum(cells)])
            found = mcnemar_interval(int(both[0]), int(both[1]), 120)
            hits += found.low <= cells[0] - cells[1] <= found.high
    assert 0.945 <= hits / trials <= 0.99


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
    # Two models with rates of about .3, correlation .5, and a difference of the detectable effect.
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


def test_no_effect_is_detectable_that_is_larger_than_shares_can_differ_by():
    # The standard error of a difference of 1 in one of two items is 1/2.
    assert compare_pairs([1, 0], [0, 0]).detectable is None
    assert compare_pairs([1, 0, 0, 0], [0, 0, 0, 0]).detectable == pytest.approx(2.8015853 / 4)
    # Likelihoods may differ by any number of nats.
    assert compare_pairs([30.0, 10.0], [20.0, 10.0]).detectable == pytest.approx(2.8015853 * 5)
    assert minimum_detectable_effect(1) is None
    assert minimum_detectable_effect(2) == pytest.approx(2.8015853 * 0.5**1.5)


# n for 80 % power at correlation 1/2 and a rate of .28 (.30 against .25): 156, 624 and 3,901 for 10, 5 and 2 points.
@pytest.mark.parametrize(("n", "effect"), [(156, 0.10), (624, 0.05), (3901, 0.02)])
def test_detectable_effects_of_a_power_table(n, effect):
    assert minimum_detectable_effect(n, 0.275, 0.5) == pytest.approx(effect, rel=0.01)
