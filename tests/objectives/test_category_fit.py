"""Labeling constants by category: better than common ones, and better than separate fits."""

import numpy as np
import pytest
import torch

from bfpo.errors import BfpoError
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.objectives.category_fit import fit_categories
from bfpo.objectives.preference_fit import fit_preference

FLAGS = torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=torch.float64)
SIZES = (120, 120, 200, 200, 400, 400, 800, 1500)


def targets(preference):
    return preference.target(FLAGS[:, 0], FLAGS[:, 1])


def world(seed):
    """Categories whose log b3 and alpha differ (standard deviations .4 and .2), judged at temperature .8."""
    generator = np.random.default_rng(seed)
    truth, rows, names = {}, [], []
    for number, size in enumerate(SIZES):
        b3 = 0.8 * np.exp(0.4 * generator.normal())
        truth[f"c{number}"] = GlobalPreference(1 + 1 / b3, 0.5 + 0.2 * generator.normal())
        flags = FLAGS[generator.choice(4, size, p=(0.4, 0.2, 0.2, 0.2))]
        chance = torch.sigmoid(truth[f"c{number}"].target(flags[:, 0], flags[:, 1]) / 0.8).numpy()
        judged = torch.tensor(generator.random(size) < chance, dtype=torch.float64)
        rows.append(torch.cat([flags, judged[:, None]], 1))
        names += [f"c{number}"] * size
    return truth, torch.cat(rows).T, names


def test_shrinkage_beats_pooling_and_going_alone():
    errors = {"shrunk": [], "pooled": [], "alone": []}
    for seed in range(5):
        truth, columns, names = world(seed)
        shrunk, pooled = fit_categories(*columns, names).categories, fit_preference(*columns).preference
        for name, right in truth.items():
            own = [at for at, other in enumerate(names) if other == name]
            try:
                alone = fit_preference(*columns[:, own]).preference
            except BfpoError:
                continue  # too few to say anything: no point for those who would use it
            for kind, found in (("shrunk", shrunk[name].preference), ("pooled", pooled), ("alone", alone)):
                errors[kind].append(float(((targets(found) - targets(right)) ** 2).mean()))
    means = {kind: np.mean(values) for kind, values in errors.items()}
    assert means["shrunk"] < 0.9 * means["pooled"]
    assert means["shrunk"] < 0.9 * means["alone"]


def test_a_category_with_many_pairs_keeps_its_own_constants():
    """Two categories with 20,000 expected judgments each: the fit is each one's own."""
    cells = FLAGS.repeat(5000, 1)
    truth = {"cheap": GlobalPreference(4.0, 0.5), "dear": GlobalPreference(1.8, 0.4)}
    judged = [torch.sigmoid(one.target(cells[:, 0], cells[:, 1]) / 0.8) for one in truth.values()]
    columns = torch.cat([cells, cells]).T
    fit = fit_categories(columns[0], columns[1], torch.cat(judged), ["cheap"] * len(cells) + ["dear"] * len(cells))
    for name, right in truth.items():
        assert fit.categories[name].preference.b1 == pytest.approx(right.b1, rel=0.05)
        assert fit.categories[name].preference.alpha == pytest.approx(right.alpha, abs=0.02)
        assert fit.categories[name].n_per_cell == {"SS": 5000, "SU": 5000, "US": 5000, "UU": 5000}


def test_equal_categories_end_at_the_common_constants():
    cells = FLAGS.repeat(200, 1)
    judged = torch.sigmoid(GlobalPreference().target(cells[:, 0], cells[:, 1]) / 0.8)
    fit = fit_categories(cells[:, 0], cells[:, 1], judged, ["a", "b"] * 400)
    assert fit.categories["a"].preference.b1 == pytest.approx(3, rel=0.05)
    assert fit.categories["a"].preference.b1 == pytest.approx(fit.categories["b"].preference.b1, rel=1e-3)


def test_what_makes_no_categories_is_refused():
    _, columns, names = world(0)
    with pytest.raises(BfpoError, match="at least two categories"):
        fit_categories(*columns, ["a"] * len(names))
    with pytest.raises(BfpoError, match="give every pair one"):
        fit_categories(*columns, names[1:])
