"""The fitted labeling function against the data's true constants and closed forms."""

import math

import pytest
import torch

from bfpo import GlobalPreference
from bfpo.errors import BfpoError

MIX = {(1, 1): 0.4, (1, 0): 0.2, (0, 1): 0.2, (0, 0): 0.2}
TEMPERATURE = 0.8


def draw(b1, seed, pairs=2000, alpha=0.5):
    """Pairs in the cell mix .4/.2/.2/.2 (SS, SU, US, UU), judged with temperature .8."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor(list(MIX.values()))
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
    fit = GlobalPreference.fit(*torch.tensor(rows, dtype=torch.float64).T)
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


def test_probable_flags_enter_by_their_likelihood():
    """Flags known with 85 % certainty: their likelihood recovers b3, thresholding them doesn't."""
    better, worse, judged = draw(2.0, 5, pairs=40_000)
    generator = torch.Generator().manual_seed(1)

    def verdict(flag):
        right = torch.rand(len(flag), generator=generator, dtype=torch.float64) < 0.85
        return torch.where(right, flag, 1 - flag)

    def posterior(flags, share):
        yes = torch.where(flags == 1, 0.85, 0.15) * share
        return yes / (yes + torch.where(flags == 1, 0.15, 0.85) * (1 - share))

    # Independent flags, as the likelihood takes them: keep an even number of every cell.
    count = min(int(((better == w) & (worse == l)).sum()) for w, l in MIX)
    kept = torch.cat([((better == w) & (worse == l)).nonzero()[:count, 0] for w, l in MIX])
    better, worse, judged = better[kept], worse[kept], judged[kept]
    found_better, found_worse = verdict(better), verdict(worse)
    soft = GlobalPreference.fit(posterior(found_better, 0.5), posterior(found_worse, 0.5), judged)
    hard = GlobalPreference.fit(found_better, found_worse, judged)
    error = soft.covariance[0, 0].sqrt().item()
    assert abs(soft.preference.b3 - 1) <= 3 * error
    assert abs(soft.temperature - TEMPERATURE) < abs(hard.temperature - TEMPERATURE) / 3


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
    rows = [(w, s, float(at < yes)) for (w, s), yes in {(1, 1): 16, (1, 0): 12, (0, 1): 10}.items() for at in range(20)]
    with pytest.raises(BfpoError, match="no weight to safety"):
        GlobalPreference.fit(*torch.tensor(rows, dtype=torch.float64).T)
