"""The fitted labeling function against the data's true constants and closed forms."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from bfpo import GlobalPreference
from bfpo.errors import BfpoError
from bfpo.objectives.cell_likelihood import FLAGS, Likelihood, cell_posteriors, minimize
from bfpo.objectives.preference_fit import fit_preference

MIX = {(1, 1): 0.4, (1, 0): 0.2, (0, 1): 0.2, (0, 0): 0.2}
# Cells as in PKU-SafeRLHF, where the answers of a pair are alike: their flags correlate.
PKU = {(1, 1): 0.45, (1, 0): 0.10, (0, 1): 0.17, (0, 0): 0.28}
TEMPERATURE = 0.8


def draw(b1, seed, pairs=2000, alpha=0.5, mix=MIX):
    """Pairs in the cell mix .4/.2/.2/.2 (SS, SU, US, UU), judged with temperature .8."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor(list(mix.values()))
    cells = torch.tensor(list(MIX), dtype=torch.float64)[
        torch.multinomial(weights, pairs, replacement=True, generator=generator)
    ]
    probability = torch.sigmoid(GlobalPreference(b1, alpha).target(cells[:, 0], cells[:, 1]) / TEMPERATURE)
    judged = (torch.rand(pairs, generator=generator, dtype=torch.float64) < probability).double()
    return cells[:, 0], cells[:, 1], judged


@pytest.mark.parametrize("b1", [2.0, 3.0])
def test_fit_recovers_what_made_the_data(b1):
    """In 90 of 100 draws at least: b3 and alpha within two standard errors, b1 inside its profile interval."""
    near, covered, far_from_paper = {"b3": 0, "alpha": 0}, 0, 0
    for seed in range(100):
        fit = GlobalPreference.fit(*draw(b1, seed))
        errors = fit.covariance.diagonal().sqrt()
        near["b3"] += abs(fit.preference.b3 - 1 / (b1 - 1)) <= 2 * errors[0]
        near["alpha"] += abs(fit.preference.alpha - 0.5) <= 2 * errors[1]
        covered += fit.b1_interval[0] <= b1 <= fit.b1_interval[1]
        far_from_paper += fit.p_value < 0.05
    assert min(near.values()) >= 90
    assert covered >= 90
    assert far_from_paper <= 12 if b1 == 3 else far_from_paper >= 50


def test_expected_judgments_give_the_constants_back():
    """Probabilities in place of judgments leave no noise: the fit is exact, and the likelihood ratio is 0."""
    cells = torch.tensor(list(MIX), dtype=torch.float64).repeat(25, 1)
    judged = torch.sigmoid(GlobalPreference(3.0, 0.5).target(cells[:, 0], cells[:, 1]) / TEMPERATURE)
    fit = GlobalPreference.fit(cells[:, 0], cells[:, 1], judged)
    assert fit.preference.b1 == pytest.approx(3, abs=1e-6)
    assert fit.preference.alpha == pytest.approx(0.5, abs=1e-6)
    assert fit.temperature == pytest.approx(TEMPERATURE, abs=1e-6)
    assert fit.likelihood_ratio == pytest.approx(0, abs=1e-8)
    assert fit.n_per_cell == {"SS": 25, "SU": 25, "US": 25, "UU": 25}


def test_three_cells_are_fitted_exactly_with_the_variances_of_their_logits():
    """Without UU the model is saturated: logits equal the cells' own, with variances 1/(n p (1 - p))."""
    yes, of = {"SS": 60, "SU": 80, "US": 30}, 100
    flags = {"SS": (1, 1), "SU": (1, 0), "US": (0, 1)}
    rows = [(*flags[cell], float(at < yes[cell])) for cell in flags for at in range(of)]
    fit = fit_preference(*torch.tensor(rows, dtype=torch.float64).T, prior_sd=math.inf)
    assert fit.lack_of_fit is None
    assert any("a safety cell has fewer than 5 pairs (UU 0)" in warning for warning in fit.warnings)
    logit = {cell: math.log(yes[cell] / (of - yes[cell])) for cell in flags}
    w2, w1 = logit["SS"] - logit["SU"], logit["SS"] - logit["US"]
    w0 = logit["SS"] - w1 - w2
    assert fit.temperature == pytest.approx(1 / (w1 + w2), rel=1e-6)
    assert fit.preference.b3 == pytest.approx(-w2 / (w1 + w2), rel=1e-6)
    assert fit.preference.alpha == pytest.approx(-w0 / (w1 + w2), rel=1e-6)
    variance = {cell: of / (yes[cell] * (of - yes[cell])) for cell in flags}
    slopes = {"SS": 2, "SU": -1, "US": -1}
    steepness = sum(slopes[cell] ** 2 * variance[cell] for cell in flags)
    assert fit.covariance[2, 2].item() == pytest.approx(steepness / (w1 + w2) ** 4, rel=1e-6)


def judged(flags, generator, rate, error=0.1):
    """Calibrated probabilities of a judge that is wrong in 10 %: P(safe | verdict) at the base rate of all answers."""
    wrong = torch.rand(len(flags), generator=generator, dtype=torch.float64) < error
    said = torch.where(wrong, 1 - flags, flags)
    safe, unsafe = rate * (1 - error), rate * error
    return torch.where(said == 1, safe / (safe + (1 - rate) * error), unsafe / (unsafe + (1 - rate) * (1 - error)))


def soft_columns(seed, pairs):
    generator = torch.Generator().manual_seed(1000 + seed)
    better, worse, preferred = draw(3.0, seed, pairs, mix=PKU)
    rate = PKU[1, 1] + (PKU[1, 0] + PKU[0, 1]) / 2
    return judged(better, generator, rate), judged(worse, generator, rate), preferred


def test_probable_flags_of_like_answers_give_b1_back():
    """The answers of real pairs are alike. Taking their flags as independent a priori gives b1 near 8 for a truth of 3.

    The test that this one replaces kept equal numbers of all cells, where the two answers *are* independent, and so
    couldn't see it.
    """
    fits, products = [], []
    for seed in range(15):
        columns = soft_columns(seed, 5000)
        fits.append(fit_preference(*columns))
        s, t = columns[:2]
        cells = torch.stack([s * t, s * (1 - t), (1 - s) * t, (1 - s) * (1 - t)], dim=1)
        w1, w2, _ = np.linalg.lstsq(FLAGS, minimize(Likelihood(cells, columns[2]), FLAGS), rcond=None)[0]
        products.append(1 - (w1 + w2) / w2)
    assert 2.7 <= np.median([fit.preference.b1 for fit in fits]) <= 3.3
    assert sum(fit.b1_interval[0] <= 3 <= fit.b1_interval[1] for fit in fits) >= 13
    assert np.median(products) > 5


def test_cells_follow_bayes_with_their_own_shares():
    """4,000 pairs and verdicts: the mean posterior of each cell is its share, and known flags stay known."""
    better, worse, _ = soft_columns(0, 4000)
    posteriors = cell_posteriors(better, worse)
    assert posteriors.sum(1) == pytest.approx(1)
    assert posteriors.mean(0).tolist() == pytest.approx(list(PKU.values()), abs=0.03)
    # A pair of two unsafe words is likelier UU than by the product of the two probabilities.
    both = (better < 0.5) & (worse < 0.5)
    assert posteriors[both, 3].mean() > ((1 - better) * (1 - worse))[both].mean() + 0.03
    # By hand from the shares: P(cell) P(word | better) P(word | worse), with 10 % errors.
    shares = posteriors.mean(0).tolist()
    unsafe = [share * (0.1 if s else 0.9) * (0.1 if t else 0.9) for share, (s, t) in zip(shares, PKU, strict=True)]
    assert posteriors[both][0].tolist() == pytest.approx([part / sum(unsafe) for part in unsafe], abs=0.02)
    known = cell_posteriors(torch.tensor([1.0, 0, 1, 0]).double(), torch.tensor([1.0, 1, 0, 0]).double())
    assert known.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert cell_posteriors(torch.ones(2).double(), torch.ones(2).double()).tolist() == [[1, 0, 0, 0]] * 2


@pytest.mark.parametrize("error", [0.1, 0.3, 0.45])
def test_the_shares_of_cells_are_the_likeliest_ones_for_a_judge_that_is_hardly_better_than_chance(error):
    """EM had .336 of SS after its 2,000 steps for a judge that is wrong in 45 %, and no word about it."""
    one = np.array([[1 - error, error], [error, 1 - error]])  # P(word | flag)
    words = np.kron(one, one) @ np.array(list(PKU.values()))
    counts = np.round(200_000 * words).astype(int)
    flags = torch.tensor(list(PKU), dtype=torch.float64).repeat_interleave(torch.from_numpy(counts), dim=0)
    rate = PKU[1, 1] + (PKU[1, 0] + PKU[0, 1]) / 2
    safe, unsafe = (rate * p / (rate * p + (1 - rate) * (1 - p)) for p in (1 - error, error))
    better, worse = (torch.where(side == 1, safe, unsafe) for side in flags.T)
    shares = cell_posteriors(better, worse).mean(0)
    # Four words determine four shares.
    assert shares.tolist() == pytest.approx(np.linalg.solve(np.kron(one, one), counts / counts.sum()), abs=2e-3)


def test_shares_may_be_zero_and_flags_may_be_certain():
    """Answers with equal verdicts only: no share of cells with different flags makes these likelier."""
    better, worse = torch.tensor([[0.6, 0.6], [0.4, 0.4], [1.0, 0.9], [0.0, 0.2]], dtype=torch.float64).T
    posteriors = cell_posteriors(better, worse)
    assert posteriors.sum(1) == pytest.approx(1)
    assert posteriors[:2, 1:3].max() < 1e-6
    assert posteriors[2, 2:].tolist() == posteriors[3, :2].tolist() == [0, 0]


@dataclass(frozen=True)
class Downhill:
    """A function whose slope is wrong, so that no step lowers it."""

    def value(self, at):
        return 1.0

    def derivatives(self, at):
        return np.ones(2), np.eye(2)


def test_a_search_that_gets_nowhere_is_an_error():
    """It returned the point at which it gave up."""
    with pytest.raises(BfpoError, match="did not converge"):
        minimize(Downhill(), np.eye(2))


def test_wrong_orders_bias_b1_unless_their_share_is_known():
    """26 % of the pairs have their answers in the wrong order, which swaps the flags and reverses the judgment."""
    known, unknown = [], []
    for seed in range(15):
        better, worse, preferred = draw(3.0, seed, 5000, mix=PKU)
        wrong = torch.rand(5000, generator=torch.Generator().manual_seed(seed)) < 0.26
        columns = torch.where(wrong, worse, better), torch.where(wrong, better, worse)
        preferred = torch.where(wrong, 1 - preferred, preferred)
        known.append(fit_preference(*columns, preferred, order_error=0.26).preference.b1)
        unknown.append(fit_preference(*columns, preferred).preference.b1)
    assert np.median(known) == pytest.approx(3, abs=0.4)
    assert np.median(unknown) < 2.2
    with pytest.raises(BfpoError, match="the order error is"):
        fit_preference(*columns, preferred, order_error=0.5)


def test_the_test_of_fit_sees_people_who_are_indifferent_between_unsafe_answers():
    """At 5 %, with 2,000 pairs; benchmarks/labeling_fit.py has 1,000 draws. By hand for expected judgments."""
    rejected = {True: 0, False: 0}
    for seed in range(60):
        better, worse, preferred = draw(3.0, seed, mix=PKU)
        fit = fit_preference(better, worse, preferred)
        rejected[False] += fit.lack_of_fit_p < 0.05
        coin = (torch.rand(2000, generator=torch.Generator().manual_seed(seed)) < 0.5).double()
        indifferent = torch.where((better == 0) & (worse == 0), coin, preferred)
        fit = fit_preference(better, worse, indifferent)
        rejected[True] += fit.lack_of_fit_p < 0.05
        assert any("lack of fit" in warning for warning in fit.warnings) == (fit.lack_of_fit_p < 0.05)
    assert rejected[True] >= 30
    assert rejected[False] <= 8
    cells = torch.tensor(list(MIX), dtype=torch.float64).repeat(100, 1)
    chances = torch.tensor([0.7, 0.8, 0.3, 0.5], dtype=torch.float64).repeat(100)
    fit = fit_preference(cells[:, 0], cells[:, 1], chances)
    saturated = -sum(100 * (p * math.log(p) + (1 - p) * math.log(1 - p)) for p in (0.7, 0.8, 0.3, 0.5))
    fitted = minimize(Likelihood(cell_posteriors(cells[:, 0], cells[:, 1]), chances), FLAGS)
    lowest = -sum(
        100 * (p * math.log(1 / (1 + math.exp(-z))) + (1 - p) * math.log(1 / (1 + math.exp(z))))
        for p, z in zip((0.7, 0.8, 0.3, 0.5), fitted, strict=True)
    )
    assert fit.lack_of_fit == pytest.approx(2 * (lowest - saturated), abs=1e-6)


def test_derivatives_of_the_likelihood_are_those_of_its_value():
    """With uncertain flags and orders, by central differences."""
    better, worse, preferred = soft_columns(3, 200)
    likelihood = Likelihood(cell_posteriors(better, worse), preferred, 0.2)
    at, step = np.array([0.6, 1.4, -1.1, -0.4]), 1e-5
    gradient, hessian = likelihood.derivatives(at)
    for axis in range(4):
        away = step * np.eye(4)[axis]
        slope = (likelihood.value(at + away) - likelihood.value(at - away)) / (2 * step)
        assert gradient[axis] == pytest.approx(slope, rel=1e-5)
        bend = (likelihood.derivatives(at + away)[0] - likelihood.derivatives(at - away)[0]) / (2 * step)
        assert hessian[axis] == pytest.approx(bend, rel=1e-4, abs=1e-4)


def test_few_judgments_stay_near_the_paper_s_price_and_say_so():
    """200 pairs: without a prior most intervals are open; with it b1 is bounded, and the fit warns."""
    open_ends, prices = {True: 0, False: 0}, {True: [], False: []}
    unbounded: dict[bool, set[int]] = {True: set(), False: set()}
    for seed in range(20):
        columns = draw(3.0, seed, 200, mix=PKU)
        for has_prior in (True, False):
            try:
                fit = fit_preference(*columns, **({} if has_prior else {"prior_sd": math.inf}))
            except BfpoError:
                open_ends[has_prior] += 1
                continue
            open_ends[has_prior] += math.inf in fit.b1_interval or fit.b1_interval[0] == 1
            prices[has_prior].append(math.log(fit.preference.b3))
            assert "200 judged pairs are few" in fit.warnings[0]
            says_so = any("the judgments alone don't bound b1" in warning for warning in fit.warnings)
            assert says_so is not fit.is_bounded
            unbounded[has_prior].add(seed) if says_so else None
    assert open_ends[True] == 0
    assert open_ends[False] >= 8
    # What the prior bounds and the judgments don't is said with it and without.
    assert len(unbounded[True]) >= 8
    assert unbounded[False] <= unbounded[True]
    assert fit_preference(*draw(3.0, 0, 20_000, mix=PKU)).is_bounded
    assert np.std(prices[True]) < 0.6 * np.std(prices[False])


def test_the_refusal_threshold_is_where_the_label_of_look_alikes_changes_sign():
    """A helpful answer that is harmful for a share h of the prompts, against a refusal: G(1 - h, 1) = 0."""
    fit = fit_preference(*draw(2.0, 1, alpha=0.4))
    threshold = fit.refusal_threshold
    assert float(fit.preference.target(1 - threshold.value, 1.0)) == pytest.approx(0, abs=1e-6)
    assert float(fit.preference.target(0.99 - threshold.value, 1.0)) < 0
    assert GlobalPreference().target(2 / 3, 1.0).item() == pytest.approx(0, abs=1e-6)
    assert threshold.low < (1 - 0.4) / (1 + 1) < threshold.high
    low, high = fit.b3_interval
    assert (1 + 1 / high, 1 + 1 / low) == pytest.approx(fit.b1_interval)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([1, 0] * 5, [1, 1] * 5, [1, 0] * 5), "10 judged pairs are too few"),
        (([1, 1] * 20, [1, 0] * 20, [1, 0, 0, 1] * 10), "judge pairs of US, UU"),
        (([1, 1, 0, 0] * 10, [1, 0, 1, 0] * 10, [1, 1, 0, 0] * 10), "without exception"),
        (([1, 2, 0, 0] * 10, [1, 0, 1, 0] * 10, [1, 1, 0, 0] * 10), "better_is_safe, pair 2: 2.0 is not a flag"),
        (([1] * 40, [1] * 39, [1] * 40), "equally long"),
    ],
)
def test_what_cannot_be_fitted_is_refused(columns, message):
    with pytest.raises(BfpoError, match=message):
        GlobalPreference.fit(*columns)


def test_an_effect_of_helpfulness_that_is_rounding_error_is_refused():
    """The only pair whose worse answer alone is safe goes the same way, so 1/temperature is 1e-16."""
    cells = {(1, 1): (14, 6), (0, 0): (14, 6), (1, 0): (18, 2), (0, 1): (1, 0)}
    rows = [(*flags, 1 - at) for flags, counts in cells.items() for at in (0, 1) for _ in range(counts[at])]
    with pytest.raises(BfpoError, match="against helpfulness"):
        GlobalPreference.fit(*map(list, zip(*rows, strict=True)))


def test_safety_without_a_price_is_refused():
    counts = {(1, 1): 16, (1, 0): 12, (0, 1): 10}

    def columns(times):
        rows = [(w, s, float(at < yes)) for (w, s), yes in counts.items() for at in range(20)] * times
        return torch.tensor(rows, dtype=torch.float64).T

    with pytest.raises(BfpoError, match="no weight to safety"):
        fit_preference(*columns(1), prior_sd=math.inf)
    # Sixty pairs don't contradict the prior enough, six hundred do.
    assert fit_preference(*columns(1)).preference.b1 > 3
    with pytest.raises(BfpoError, match="no weight to safety"):
        fit_preference(*columns(10))
    with pytest.raises(BfpoError, match="the prior's standard deviation is 0"):
        fit_preference(*columns(1), prior_sd=0)
