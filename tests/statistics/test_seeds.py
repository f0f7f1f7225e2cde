"""Item and seed variance: a worked example, simulated truth, and intervals that include both."""

import math

import numpy as np
import pytest

from bfpo.statistics.comparing import compare_pairs
from bfpo.statistics.seeds import cluster_means, compare_seeds, seed_error


def simulated(generator, seeds, items, seed_sd, item_sd, rest_sd, item_effects=None):
    effects = generator.normal(0, item_sd, size=items) if item_effects is None else item_effects
    return generator.normal(0, seed_sd, size=(seeds, 1)) + effects + generator.normal(0, rest_sd, size=(seeds, items))


def test_seed_error_of_a_table_by_hand():
    # Rows 2 apart, columns 2 apart: pure effects, no rest. Mean square of the seeds: 3 * 2, so their variance is 2.
    found = seed_error(np.array([[0.0, 2.0, 4.0], [2.0, 4.0, 6.0]]))
    assert (found.value, found.degrees, found.raw) == (1.0, 1, 1.0)


def test_seed_error_is_unbiased():
    generator = np.random.default_rng(0)
    found = [seed_error(simulated(generator, 6, 80, 0.5, 1.0, 0.8)).value for _ in range(400)]
    assert np.mean(found) == pytest.approx(0.25 / 6, rel=0.06)


def test_a_single_seed_says_nothing_of_seeds():
    values = np.array([[1.0, 0.0, 1.0, 1.0]])
    assert seed_error(values).value == 0
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
    assert found.seed_error == pytest.approx(math.sqrt(seed_error(a).value + seed_error(b).value))
    assert found.difference.value == pytest.approx(a.mean() - b.mean())
    assert found.difference.n == 50


def test_identical_runs_do_not_differ():
    values = np.ones((3, 10))
    found = compare_seeds(values, values)
    assert (found.p, found.difference.value) == (1.0, 0.0)
    assert found.difference.low < 0 < found.difference.high


def test_items_of_a_cluster_are_one():
    assert cluster_means([1.0, 0.0, 0.5, 1.0], np.array([0, 0, 1, 2])).tolist() == [0.5, 0.5, 1.0]
