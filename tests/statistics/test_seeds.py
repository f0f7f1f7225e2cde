"""Item and seed variance: a worked example, simulated truth, and intervals that include both."""

import math

import numpy as np
import pytest

from bfpo.statistics.comparing import compare_pairs
from bfpo.statistics.intervals import standard_error
from bfpo.statistics.seeds import cluster_contributions, compare_seeds, seed_variance


def simulated(generator, seeds, items, seed_sd, item_sd, rest_sd, item_effects=None):
    effects = generator.normal(0, item_sd, size=items) if item_effects is None else item_effects
    return generator.normal(0, seed_sd, size=(seeds, 1)) + effects + generator.normal(0, rest_sd, size=(seeds, items))


def test_seed_variance_of_a_table_by_hand():
    # Rows 2 apart, columns 2 apart: pure effects, no rest. Mean square of the seeds: 3 * 2, so their variance is 2.
    found = seed_variance(np.array([[0.0, 2.0, 4.0], [2.0, 4.0, 6.0]]))
    assert (found.value, found.degrees, found.raw) == (1.0, 1, 1.0)


def test_seed_variance_is_unbiased():
    generator = np.random.default_rng(0)
    found = [seed_variance(simulated(generator, 6, 80, 0.5, 1.0, 0.8)).value for _ in range(400)]
    assert np.mean(found) == pytest.approx(0.25 / 6, rel=0.06)


def test_a_single_seed_says_nothing_of_seeds():
    values = np.array([[1.0, 0.0, 1.0, 1.0]])
    assert seed_variance(values).value == 0
    other = np.array([[0.0, 0.0, 1.0, 0.0]])
    found, paired = compare_seeds(values, other), compare_pairs(values[0].tolist(), other[0].tolist())
    assert found.difference.value == paired.difference.value
    assert found.seed_error == 0


@pytest.mark.parametrize(("first", "second"), [(5, 5), (3, 8), (5, 1)])
def test_intervals_over_seeds_hold_the_truth(first, second):
    # Both share the items; a lone run of the second has no seed variance of its own in the simulation either.
    generator, hits, naive, trials = np.random.default_rng(1), 0, 0, 600
    for _ in range(trials):
        items = generator.normal(0, 1, size=100)
        a = simulated(generator, first, 100, 0.3, 1.0, 0.5, items + generator.normal(0, 0.4, size=100))
        b = simulated(generator, second, 100, 0.3 if second > 1 else 0.0, 1.0, 0.5, items)
        difference = compare_seeds(a, b).difference
        hits += difference.low <= 0 <= difference.high
        alone = compare_pairs(a.mean(axis=0).tolist(), b.mean(axis=0).tolist()).difference
        naive += alone.low <= 0 <= alone.high
    assert 0.92 <= hits / trials <= 0.99
    assert naive / trials < 0.75  # items alone promise far too much


def test_errors_of_items_and_seeds_add_up():
    generator = np.random.default_rng(2)
    a, b = simulated(generator, 4, 50, 0.3, 1.0, 0.2), simulated(generator, 4, 50, 0.1, 1.0, 0.2)
    found = compare_seeds(a, b)
    differences = a.mean(axis=0) - b.mean(axis=0)
    assert found.item_error == pytest.approx(differences.std(ddof=1) / math.sqrt(50))
    assert found.seed_error == pytest.approx(math.sqrt(seed_variance(a).value + seed_variance(b).value))
    assert found.difference.value == pytest.approx(a.mean() - b.mean())
    assert found.difference.n == 50


def test_identical_runs_do_not_differ():
    values = np.ones((3, 10))
    found = compare_seeds(values, values)
    assert (found.p, found.difference.value) == (1.0, 0.0)
    assert found.difference.low < 0 < found.difference.high
    assert compare_seeds(values[:, :1].repeat(2, 1), values[:, :2]).detectable is None


def test_a_constant_difference_says_the_same_in_every_unit():
    values = np.tile(np.arange(2.0, 12.0), (2, 1))
    plain, scaled = (compare_seeds(unit * (values + 5), unit * values) for unit in (1.0, 100.0))
    assert scaled.p == pytest.approx(plain.p)
    assert plain.p == pytest.approx(compare_pairs(values[0] + 5, values[0]).p)


def test_one_item_or_cluster_is_refused():
    for values, clusters in ((np.ones((2, 1)), None), (np.ones((2, 3)), ["a"] * 3)):
        with pytest.raises(ValueError, match="needs at least 2 independent items, not 1"):
            compare_seeds(values, values, clusters)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_identical_seeds_give_the_comparison_of_one_run_whatever_the_size_of_clusters(seeds):
    """One cluster has half of the items, and the difference within it is the opposite of the one elsewhere."""
    clusters = ["large"] * 40 + list(range(40))
    first, second = np.repeat([1.0, 0.0, 1.0], [40, 10, 30]), np.repeat([0.0, 1.0], [40, 40])
    paired = compare_pairs(first.tolist(), second.tolist(), clusters)
    found = compare_seeds(np.tile(first, (seeds, 1)), np.tile(second, (seeds, 1)), clusters)
    for name in ("value", "low", "high", "n"):
        assert getattr(found.difference, name) == pytest.approx(getattr(paired.difference, name))
    assert found.difference.value == pytest.approx(0.375)
    assert found.p == pytest.approx(paired.p)
    assert found.detectable == pytest.approx(paired.detectable)
    assert found.seed_error == 0


def test_contributions_of_clusters_have_the_mean_of_the_items_and_its_error():
    generator = np.random.default_rng(3)
    values, codes = generator.normal(size=(3, 12)), np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 3])
    found = cluster_contributions(values, codes)
    assert found.mean(axis=1) == pytest.approx(values.mean(axis=1))
    for row, own in zip(values, found, strict=True):
        assert own.std(ddof=1) / 2 == pytest.approx(standard_error(row, codes))
    equal = cluster_contributions(values, np.arange(12) // 3)
    assert equal == pytest.approx(values.reshape(3, 4, 3).mean(axis=2))
