"""Agreement of two raters against scikit-learn, statsmodels' numbers and simulated truth."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from bfpo.statistics.agreement import agreement, cohens_kappa
from bfpo.statistics.intervals import rate_interval, wilson


def raters(table):
    pairs = [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    return [a for a, _ in pairs], [b for _, b in pairs]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60))
def test_kappa_is_scikit_learns_and_its_interval_holds_it(pairs):
    first, second = (list(rater) for rater in zip(*pairs, strict=True))
    found = cohens_kappa(first, second)
    if len({*first, *second}) == 1:
        assert found is None
    else:
        assert found.value == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
        assert -1 <= found.low <= found.value + 1e-12 <= found.high + 2e-12 <= 1 + 2e-12
        assert found.low < found.high


# statsmodels 0.15.0, cohens_kappa: kappa, and its interval from std_kappa (Fleiss, Cohen and Everitt).
@pytest.mark.parametrize(
    ("table", "kappa", "low", "high"),
    [
        ([[20, 5], [10, 15]], 0.4, 0.151092290476661, 0.6489077095233389),
        ([[44, 5, 1], [7, 20, 3], [9, 5, 6]], 0.49152542372881347, 0.35015820121748686, 0.6328926462401401),
    ],
)
def test_the_interval_is_statsmodels_with_students_quantile(table, kappa, low, high):
    found, n = cohens_kappa(*raters(table)), sum(map(sum, table))
    factor = scipy.stats.t.ppf(0.975, n - 1) / scipy.stats.norm.ppf(0.975) * math.sqrt(n / (n - 1))
    assert (found.value, found.n) == (pytest.approx(kappa), n)
    assert kappa - found.low == pytest.approx((kappa - low) * factor)
    assert found.high - kappa == pytest.approx((high - kappa) * factor)


def test_answers_to_one_prompt_are_one_observation():
    first, second = raters([[20, 5], [10, 15]])
    alone = cohens_kappa(first, second)
    repeated = cohens_kappa(first * 6, second * 6, [*range(50)] * 6)
    assert repeated.value == pytest.approx(alone.value)
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low)
    assert (cohens_kappa(first, second, [0] * 50).low, cohens_kappa(first, second, [0] * 50).high) == (-1, 1)


def test_complete_agreement_is_not_certainty():
    found = cohens_kappa(*raters([[10, 0], [0, 20]]))
    chance = (1 / 3) ** 2 + (2 / 3) ** 2
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx((wilson(30, 30).low - chance) / (1 - chance))
    assert cohens_kappa(*raters([[30, 0], [0, 0]])) is None
    assert cohens_kappa([], []) is None


def test_kappas_interval_covers_it():
    generator, hits = np.random.default_rng(0), 0
    for _ in range(500):
        truth = generator.random(80) < 0.3
        labels = np.where(generator.random(80) < 0.15, ~truth, truth)
        found = cohens_kappa(truth.tolist(), labels.tolist())
        chance = 0.3 * 0.36 + 0.7 * 0.64
        hits += found.low <= (0.85 - chance) / (1 - chance) <= found.high
    assert 0.92 <= hits / 500 <= 0.98


def test_agreement_is_over_answers_that_both_rated():
    first, second = ["safe", "safe", "unsafe", "unparsed"], ["safe", "unsafe", "unsafe", "safe"]
    found = agreement(first, second)
    assert found.observed == rate_interval([1, 0, 1])
    assert found.kappa == cohens_kappa(first[:3], second[:3])
    assert found.table["unparsed", "safe"] == 1
    assert agreement(["unparsed"], ["safe"]) is None
