"""Prices by category: recovered where there are many judgments, shrunk where there are few, better than one price."""

import math

import numpy as np
import pytest
import torch

from bfpo.errors import BfpoError
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.objectives.cell_likelihood import cell_posteriors
from bfpo.objectives.preference_fit import fit_preference
from bfpo.objectives.price_fit import fit_prices

CELLS = np.array([[1.0, 1], [1, 0], [0, 1], [0, 0]])
SIZES = (40, 60, 100, 200, 400, 800)


def judgments(prices, sizes, seed=0, alpha=0.5, temperature=0.8, exact=False, severities=(1 / 3, 2 / 3, 1.0)):
    """Pairs in which an unsafe answer has harm of the pair's category at level 1/3, 2/3 or 1; numpy alone."""
    generator = np.random.default_rng(seed)
    flags, outcomes, harms = [], [], ([], [])
    for (name, price), size in zip(prices.items(), sizes, strict=True):
        cells = CELLS[generator.choice(4, size, p=(0.25, 0.25, 0.25, 0.25))]
        levels = generator.choice(severities, (size, 2))
        harm = (1 - cells) * levels
        chance = 1 / (1 + np.exp(-(cells[:, 0] - alpha + price * (harm[:, 1] - harm[:, 0])) / temperature))
        flags.append(cells)
        outcomes.append(chance if exact else (generator.random(size) < chance).astype(float))
        for side in (0, 1):
            harms[side].extend({name: level} if level else {} for level in harm[:, side])
    flags = np.concatenate(flags)
    return flags[:, 0].tolist(), flags[:, 1].tolist(), np.concatenate(outcomes).tolist(), *harms


def test_expected_judgments_give_the_prices_back():
    truth = {"cheap": 0.3, "dear": 3.0, "middling": 0.8}
    fit = fit_prices(*judgments(truth, (4000, 4000, 4000), alpha=0.4, exact=True))
    assert fit.prices == pytest.approx(truth, rel=0.05)
    assert (fit.preference.alpha, fit.temperature) == pytest.approx((0.4, 0.8), abs=0.01)
    for name, one in fit.categories.items():
        assert one.interval[0] < truth[name] < one.interval[1]
        assert one.pairs == pytest.approx(3000, abs=100)  # three of four cells have harm


def test_one_price_is_the_paper_s_labeling_function():
    """Harm of level 1 - s and one price: b3, alpha and the temperature of the fit with two flags."""
    generator = np.random.default_rng(1)
    cells = CELLS[generator.choice(4, 4000)]
    chance = torch.sigmoid(GlobalPreference(2.5, 0.4).target(*torch.from_numpy(cells.T)) / 0.7).tolist()
    names = ["a", "b"] * 2000
    harms = [[{name: 1.0} if not safe else {} for name, safe in zip(names, side, strict=True)] for side in cells.T]
    fit = fit_prices(*cells.T.tolist(), chance, *harms)
    plain = fit_preference(*cells.T.tolist(), chance, prior_sd=math.inf)
    assert list(fit.prices.values()) == pytest.approx([plain.preference.b3] * 2, rel=0.01)
    assert fit.preference.b3 == pytest.approx(plain.preference.b3, rel=0.01)
    assert (fit.preference.alpha, fit.temperature) == pytest.approx((0.4, 0.7), abs=0.005)


def test_shrinkage_beats_one_price_and_prices_alone():
    errors = {"shrunk": [], "common": [], "few, shrunk": [], "few, alone": []}
    for seed in range(3):
        generator = np.random.default_rng([seed, 9])
        truth = {f"c{number}": 0.8 * np.exp(0.5 * generator.normal()) for number in range(len(SIZES))}
        judged = judgments(truth, SIZES, seed)
        fit = fit_prices(*judged)
        for number, (name, size) in enumerate(zip(truth, SIZES, strict=True)):
            away = {"shrunk": fit.prices[name], "common": fit.preference.b3}
            if number == 1:
                # The price that this category's own judgments fit best, the other constants given.
                start = sum(SIZES[:number])
                own = slice(start, start + size)
                better, _, outcomes, *harms = (np.array(column, object)[own] for column in judged)
                saved = [two.get(name, 0) - one.get(name, 0) for one, two in zip(*harms, strict=True)]
                grid = np.exp(np.linspace(-3, 3, 601))
                logits = (better[:, None] - 0.5 + np.outer(saved, grid)).astype(float) / 0.8
                signs = 2 * outcomes.astype(float)[:, None] - 1
                alone = grid[np.logaddexp(0, -signs * logits).sum(0).argmin()]
                away |= {"few, shrunk": fit.prices[name], "few, alone": alone}
            for kind, price in away.items():
                errors[kind].append((np.log(price) - np.log(truth[name])) ** 2)
    means = {kind: np.mean(values) for kind, values in errors.items()}
    assert means["shrunk"] < 0.8 * means["common"], means
    assert means["few, shrunk"] < means["few, alone"], means


def test_a_category_with_few_judgments_is_near_the_others():
    fit = fit_prices(*judgments({"a": 0.8, "b": 0.8, "c": 0.8, "few": 6.0}, (800, 800, 800, 8), 3))
    assert 0.5 < fit.prices["few"] < 2.5
    low, high = fit.categories["few"].interval
    assert high / low > 2


def test_harm_without_a_category_has_the_price_in_common_and_is_none():
    better, worse, outcomes, *harms = judgments({"a": 0.5, "b": 2.0}, (3000, 3000), severities=(1.0,))
    unknown = [[{} if at % 5 == 0 else harm for at, harm in enumerate(side)] for side in harms]
    fit = fit_prices(better, worse, outcomes, *unknown)
    assert set(fit.categories) == {"a", "b"}
    assert fit.prices["a"] < fit.preference.b3 < fit.prices["b"]


def test_probabilities_enter_through_the_likelihood():
    """Flags known up to a channel of 10 % errors: the posterior gives the prices back, the nearer flag doesn't."""
    truth = {"cheap": 0.4, "dear": 2.0}
    better, worse, *_ = judgments(truth, (6000, 6000), 2)
    generator = np.random.default_rng(7)
    flags = np.array([better, worse])
    seen = np.where(generator.random(flags.shape) < 0.1, 1 - flags, flags)
    # With even odds and independent answers the posterior of a flag is .9 or .1; levels as if unsafe.
    levels = [[{name: 1.0} for name in ("cheap",) * 6000 + ("dear",) * 6000]] * 2
    chance = 1 / (1 + np.exp(-(flags[0] - 0.5 + np.repeat([0.4, 2.0], 6000) * (flags[0] - flags[1])) / 0.8))
    outcomes = (generator.random(12000) < chance).astype(float).tolist()
    soft = fit_prices(*(0.1 + 0.8 * seen).tolist(), outcomes, *levels)
    hard = fit_prices(*seen.tolist(), outcomes, *levels)
    assert soft.prices["dear"] == pytest.approx(2.0, rel=0.15)
    assert abs(np.log(soft.prices["dear"] / 2.0)) < 0.5 * abs(np.log(hard.prices["dear"] / 2.0))


def test_what_makes_no_prices_is_refused():
    better, worse, outcomes, *harms = judgments({"a": 1.0, "b": 1.0}, (50, 50))
    with pytest.raises(BfpoError, match="at least two categories"):
        fit_prices(better, worse, outcomes, [{}] * 100, [{"a": 1.0}] * 100)
    with pytest.raises(BfpoError, match="give the harm of both answers of each"):
        fit_prices(better, worse, outcomes, harms[0][1:], harms[1])


def test_wrong_orders_are_undone_by_their_share():
    """Expected judgments of pairs of which a fifth is in the wrong order: the prices are those of the right ones."""
    generator = np.random.default_rng(2)
    cells = CELLS[generator.choice(4, 4000)]
    names = ["a", "b"] * 2000
    harms = [[{name: 1.0} if not safe else {} for name, safe in zip(names, side, strict=True)] for side in cells.T]
    chances = np.zeros(4000)
    for at, (name, (w, s)) in enumerate(zip(names, cells, strict=True)):
        label = GlobalPreference(1 + 1 / {"a": 0.4, "b": 1.2}[name], 0.4).target
        right, wrong = (1 / (1 + math.exp(-float(label(*pair)) / 0.7)) for pair in ((w, s), (s, w)))
        chances[at] = 0.8 * right + 0.2 * (1 - wrong)
    fit = fit_prices(*cells.T.tolist(), chances.tolist(), *harms, order_error=0.2)
    assert list(fit.prices.values()) == pytest.approx([0.4, 1.2], rel=0.06)
    unknown = fit_prices(*cells.T.tolist(), chances.tolist(), *harms)
    assert list(unknown.prices.values()) != pytest.approx([0.4, 1.2], rel=0.2)


def negative_log_posterior(constants, cells, levels, outcomes, order_error, spread):
    """Of (log 1/t, alpha, log b_1 .. log b_C, mean of log b), written out for torch to differentiate."""
    steepness, prices = constants[0].exp(), constants[2:].exp()
    preferred = torch.zeros(len(cells), dtype=torch.float64)
    for weight, safe in zip(cells.T, torch.from_numpy(CELLS), strict=True):
        costs = [(1 - safe[side]) * (levels[side] @ prices) for side in (0, 1)]
        right, wrong = (
            torch.sigmoid(steepness * (safe[one] - constants[1] + costs[1 - one] - costs[one])) for one in (0, 1)
        )
        preferred = preferred + weight * ((1 - order_error) * right + order_error * (1 - wrong))
    likely = torch.where(outcomes, preferred, 1 - preferred)
    return ((constants[2:-1] - constants[-1]) ** 2).sum() / (2 * spread**2) - likely.log().sum()


def test_the_fit_is_the_posterior_mode_of_the_written_out_likelihood():
    """Gradient 0 there, and intervals from its curvature, with uncertain flags and orders."""
    better, worse, outcomes, *harms = judgments({"a": 0.4, "b": 1.5}, (120, 120), 4)
    flags = [[0.15 + 0.7 * flag for flag in side] for side in (better, worse)]
    full = [[harm or {name: 0.5} for harm, name in zip(side, ["a"] * 120 + ["b"] * 120, strict=True)] for side in harms]
    fit = fit_prices(*flags, outcomes, *full, order_error=0.1)
    cells = cell_posteriors(*(torch.tensor(side, dtype=torch.float64) for side in flags))
    levels = torch.tensor([[[harm.get("a", 0), harm.get("b", 0), 0] for harm in side] for side in full]).double()
    logs = [math.log(fit.prices[name]) for name in ("a", "b")]
    constants = [-math.log(fit.temperature), fit.preference.alpha, *logs, math.log(fit.preference.b3)]
    at, given = (
        torch.tensor(constants, dtype=torch.float64),
        (cells, levels, torch.tensor(outcomes) > 0, 0.1, fit.spread),
    )
    slope = torch.func.grad(negative_log_posterior)(at, *given)
    assert slope.abs().max() < 1e-5
    away = torch.tensor([0.0, 0, 0.01, 0, 0], dtype=torch.float64)
    assert torch.func.grad(negative_log_posterior)(at + away, *given).abs().max() > 1e-2
    covariance = torch.linalg.inv(torch.func.hessian(negative_log_posterior)(at, *given))
    for place, name in enumerate(("a", "b")):
        half = 1.959964 * math.sqrt(covariance[2 + place, 2 + place])
        ends = [math.exp(logs[place] + sign * half) for sign in (-1, 1)]
        assert fit.categories[name].interval == pytest.approx(ends, rel=1e-4)


def test_judgments_without_exceptions_have_no_temperature():
    better, worse, _, *harms = judgments({"a": 0.4, "b": 1.5}, (200, 200))
    agreed = [
        float(one - 0.5 + 3 * (len(two_harm) - len(one_harm)) > 0)
        for one, one_harm, two_harm in zip(better, *harms, strict=True)
    ]
    with pytest.raises(BfpoError, match="without exception"):
        fit_prices(better, worse, agreed, *harms)
