"""The cluster bootstrap and the joint mean, against closed forms and simulated truth."""

import math

import numpy as np
import pytest
import scipy.stats

from bfpo.statistics.intervals import standard_error, wilson
from bfpo.statistics.joint import Measured, joint_mean, probability_both_above
from bfpo.statistics.resampling import bootstrap_interval, bootstrap_means


def clustered(generator, count=60, size=4):
    clusters = np.repeat(np.arange(count), size)
    return generator.normal(size=count)[clusters] + generator.normal(size=len(clusters)), clusters


def test_bootstrap_errors_are_the_sandwichs():
    values, clusters = clustered(np.random.default_rng(0))
    drawn = bootstrap_means(values[:, None], clusters.tolist(), 0, 20_000)[:, 0]
    # The sandwich has C/(C - 1), the bootstrap has not.
    assert drawn.std() == pytest.approx(standard_error(values, clusters) * math.sqrt(59 / 60), rel=0.02)
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.005)


def test_columns_are_drawn_together_and_draws_are_seeded(monkeypatch):
    parts = np.random.default_rng(1).normal(size=(50, 1)) * [1.0, 2.0]
    drawn = bootstrap_means(parts, None, 3, 500)
    assert np.allclose(drawn[:, 1], 2 * drawn[:, 0])
    assert np.array_equal(drawn, bootstrap_means(parts, None, 3, 500))
    assert not np.array_equal(drawn, bootstrap_means(parts, None, 4, 500))
    # A chunk is a matter of memory.
    monkeypatch.setattr("bfpo.statistics.resampling._DRAWS_AT_ONCE", 50 * 7)
    assert bootstrap_means(parts, None, 3, 500).shape == (500, 2)


def test_a_figure_that_is_no_mean_has_the_delta_methods_interval():
    values = (np.random.default_rng(3).random(400) < 0.7).astype(float)[:, None]
    found = bootstrap_interval(values, None, lambda means: 1 - 2 * np.abs(means[:, 0] - 0.5), bounds=(0.0, 1.0))
    assert found.value == pytest.approx(1 - 2 * abs(values.mean() - 0.5))
    error = 2 * math.sqrt(values.mean() * (1 - values.mean()) / 400)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)


def test_no_variation_is_not_certainty():
    found = bootstrap_interval(np.ones((30, 2)), None, lambda means: means[:, 0] / means[:, 1], bounds=(-1.0, 1.0))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(1 - 2 * wilson(0, 30).high)


def test_the_ellipse_covers_two_means_at_once():
    generator, hits, trials = np.random.default_rng(5), 0, 600
    for _ in range(trials):
        # Half of the clusters have an item of either figure.
        shared = generator.normal(size=40)
        first, second = shared + generator.normal(size=40), 0.5 * shared + generator.normal(size=40)
        joint = joint_mean(Measured(first.tolist(), range(40)), Measured(second[:30].tolist(), range(30)))
        outline = joint.ellipse(200) - joint.center
        inverse = np.linalg.inv(np.asarray(joint.covariance))
        radius = np.einsum("pi,ij,pj->p", outline, inverse, outline)
        assert radius.std() < 1e-6 * radius.mean()
        hits += np.asarray(joint.center) @ inverse @ np.asarray(joint.center) <= radius[0]
    assert 0.925 <= hits / trials <= 0.975


def test_the_ellipse_has_hotellings_radius():
    joint = joint_mean(Measured([0.0, 1.0] * 15, range(30)), Measured([0.0, 1.0, 1.0] * 10, range(100, 130)))
    assert joint.clusters == 60
    outline = joint.ellipse(4) - joint.center
    expected = 2 * 59 / 58 * scipy.stats.f.ppf(0.95, 2, 58)
    inverse = np.linalg.inv(np.asarray(joint.covariance))
    assert outline[0] @ inverse @ outline[0] == pytest.approx(expected)


def test_figures_of_other_prompts_do_not_err_together():
    generator = np.random.default_rng(6)
    first, second = generator.beta(2, 2, size=200), generator.beta(2, 2, size=300)
    joint = joint_mean(Measured(first.tolist(), range(200)), Measured(second.tolist(), range(1000, 1300)))
    assert joint.covariance[0][1] == 0
    assert joint.covariance[0][0] == pytest.approx(first.var(ddof=1) / 200, rel=0.01)


def test_probability_of_dominating_is_the_product_where_figures_are_apart():
    generator = np.random.default_rng(7)
    first, second = generator.normal(0.1, 1, size=150), generator.normal(0.05, 1, size=250)
    found = probability_both_above(
        Measured(first.tolist(), range(150)), Measured(second.tolist(), range(1000, 1250)), replicates=20_000
    )
    normal = [scipy.stats.norm.cdf(v.mean() / (v.std() / math.sqrt(len(v)))) for v in (first, second)]
    assert found == pytest.approx(normal[0] * normal[1], abs=0.015)
    always = Measured([0.1, 0.2, 0.3], range(3))
    assert probability_both_above(always, always, replicates=100) == 1.0


def test_few_clusters_have_no_joint_region():
    two, one = (joint_mean(Measured([0.0, 1.0], own), Measured([1.0, 1.0], own)) for own in (["a", "b"], ["a", "a"]))
    assert (one.center, one.covariance) == ((0.5, 1.0), ((math.inf, 0.0), (0.0, math.inf)))
    for joint, count in ((two, 2), (one, 1)):
        with pytest.raises(ValueError, match=f"needs at least 3 independent items, not {count}"):
            joint.ellipse()
