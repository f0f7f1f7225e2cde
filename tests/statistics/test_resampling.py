"""The cluster bootstrap, the joint mean and judges' errors, against closed forms and simulated truth."""

import math

import numpy as np
import pytest
import scipy.stats

from bfpo.statistics.intervals import Estimate, standard_error
from bfpo.statistics.joint import Measured, joint_mean, probability_both_above
from bfpo.statistics.judging import JudgeErrors, cohens_kappa, corrected_rate
from bfpo.statistics.resampling import Stratum, aggregate, bootstrap_means


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


def test_an_aggregate_has_the_error_of_the_weighted_mean():
    generator = np.random.default_rng(2)
    tasks = [Stratum(generator.beta(2, b, size=(n, 1))) for b, n in ((2, 40), (3, 200), (5, 1000))]
    found = aggregate(tasks, [2, 1, 1])
    means = [float(task.parts.mean()) for task in tasks]
    errors = [float(task.parts.std(ddof=1)) / math.sqrt(len(task.parts)) for task in tasks]
    assert found.value == pytest.approx(means[0] / 2 + means[1] / 4 + means[2] / 4)
    half = 1.96 * math.hypot(errors[0] / 2, errors[1] / 4, errors[2] / 4)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)
    assert found.n == 1240


def test_an_aggregate_can_be_of_what_is_no_mean():
    values = (np.random.default_rng(3).random(400) < 0.7).astype(float)[:, None]
    balance = Stratum(values, None, lambda means: 1 - 2 * np.abs(means[:, 0] - 0.5))
    found = aggregate([balance])
    assert found.value == pytest.approx(1 - 2 * abs(values.mean() - 0.5))
    error = 2 * math.sqrt(values.mean() * (1 - values.mean()) / 400)  # the delta method
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)


def test_the_aggregates_interval_covers_it():
    generator, hits = np.random.default_rng(4), 0
    for trial in range(400):
        tasks = [Stratum(generator.beta(a, 1, size=(n, 1))) for a, n in ((1, 40), (2, 90))]
        found = aggregate(tasks, seed=trial, replicates=1000)
        hits += found.low <= (1 / 2 + 2 / 3) / 2 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


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


# statsmodels 0.15.0, cohens_kappa: kappa, and its interval from std_kappa.
@pytest.mark.parametrize(
    ("table", "kappa", "low", "high"),
    [
        ([[20, 5], [10, 15]], 0.4, 0.151092290476661, 0.6489077095233389),
        ([[44, 5, 1], [7, 20, 3], [9, 5, 6]], 0.49152542372881347, 0.35015820121748686, 0.6328926462401401),
    ],
)
def test_kappa_is_statsmodels(table, kappa, low, high):
    found = cohens_kappa(table)
    assert found is not None
    assert (found.value, found.low, found.high) == (pytest.approx(kappa), pytest.approx(low), pytest.approx(high))
    assert found.n == sum(map(sum, table))


def test_kappa_where_it_means_nothing():
    assert cohens_kappa([[30, 0], [0, 0]]) is None
    assert cohens_kappa([[0, 0], [0, 0]]) is None
    assert cohens_kappa([[10, 0], [0, 20]]) == Estimate(1.0, 1.0, 1.0, 30)


def test_correction_undoes_the_judge():
    # Of 1,000 answers 400 are unsafe; the judge (.85, .97) finds 340 of these and accuses 18 of the 600 others.
    values = [1.0] * 358 + [0.0] * 642
    found = corrected_rate(values, JudgeErrors(170, 200, 291, 300))
    assert found is not None
    assert found.value == pytest.approx(0.4)
    assert found.low < 0.4 < found.high
    alone = corrected_rate(values, JudgeErrors(170_000, 200_000, 291_000, 300_000))
    assert alone.high - alone.low < found.high - found.low  # what is known of the judge is part of the interval
    error = math.sqrt(0.358 * 0.642 / 1000) / 0.82
    assert (alone.high - alone.low) / 2 == pytest.approx(1.96 * error, rel=0.05)


def test_correction_at_the_edges():
    perfect = corrected_rate([0.0] * 50, JudgeErrors(100, 100, 100, 100))
    assert (perfect.value, perfect.low) == (0.0, 0.0)
    assert perfect.high > 0.02
    assert corrected_rate([1.0] * 5, JudgeErrors(50, 100, 50, 100)) is None
    # Fewer accusations than the judge's own errors explain: 0, and no less.
    assert corrected_rate([0.0] * 99 + [1.0], JudgeErrors(90, 100, 90, 100)).value == 0.0


@pytest.mark.parametrize("rate", [0.05, 0.4])
def test_corrected_intervals_cover_the_truth(rate):
    generator, hits, trials = np.random.default_rng(8), 0, 500
    for trial in range(trials):
        sensitivity, specificity = 0.85, 0.95
        errors = JudgeErrors(
            int(generator.binomial(150, sensitivity)), 150, int(generator.binomial(200, specificity)), 200
        )
        accused = rate * sensitivity + (1 - rate) * (1 - specificity)
        values = (generator.random(400) < accused).astype(float).tolist()
        found = corrected_rate(values, errors, seed=trial, replicates=1000)
        hits += found.low <= rate <= found.high
    assert 0.92 <= hits / trials <= 0.985
