"""Calibrated probabilities: the posterior by counting, out of fold, and a loss no worse than the truth's allows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from bfpo.labeling.calibrating import calibrated


def words(seed, count=400, sensitivity=0.8, specificity=0.9, share=0.7):
    """A judge's words on single answers to different prompts."""
    random = np.random.default_rng(seed)
    safe = (random.random(count) < share).astype(float)
    wrong = random.random(count) < np.where(safe == 1, 1 - specificity, 1 - sensitivity)
    return np.where(wrong, 1 - safe, safe)[:, None] * 0.98 + 0.01, safe, [f"p{n}" for n in range(count)]


def test_words_become_the_posterior_by_counting():
    p, safe, prompts = words(0)
    inside = np.arange(400) < 300
    found = calibrated(p, safe, inside, prompts[:300])
    for says_safe in (True, False):
        chosen = (p[:, 0] > 0.5) == says_safe
        counted = safe[inside & chosen].mean()
        # Platt's targets are 1/(n + 2) away from 0 and 1.
        assert found[~inside & chosen] == pytest.approx(counted, abs=0.01)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(0, 59))
def test_neither_an_answer_s_own_label_nor_its_prompt_s_has_a_part_in_its_probability(seed, at):
    p, safe, prompts = words(seed, 60)
    prompts = [prompts[n // 2] for n in range(60)]
    changed = safe.copy()
    changed[2 * (at // 2)] = 1 - changed[2 * (at // 2)]
    before, after = (calibrated(p, labels, np.ones(60, dtype=bool), prompts, seed=seed) for labels in (safe, changed))
    pair = [2 * (at // 2), 2 * (at // 2) + 1]
    np.testing.assert_array_equal(before[pair], after[pair])
    assert not np.array_equal(before, after)


def test_probabilities_do_not_depend_on_the_order_of_the_answers():
    p, safe, prompts = words(7, 200)
    prompts = [prompts[n // 2] for n in range(200)]
    inside, order = np.arange(200) < 120, np.random.default_rng(1).permutation(200)
    found = calibrated(p, safe, inside, [prompts[at] for at in np.flatnonzero(inside)])
    other = calibrated(p[order], safe[order], inside[order], [prompts[at] for at in order if inside[at]])
    # Sums are rounded differently.
    assert other == pytest.approx(found[order], abs=1e-9)


def test_the_loss_out_of_fold_is_that_of_the_true_posterior():
    """Two judges with probabilities of their own and shared errors: within .02 nats of what is possible."""
    random = np.random.default_rng(3)
    safe = (random.random(3000) < 0.6).astype(float)
    evidence = 2 * safe - 1 + random.normal(size=3000)
    truth = expit(2 * evidence + np.log(0.6 / 0.4))
    # Both read the same evidence, one of them far too sure of it.
    p = expit(np.stack([6 * evidence + 1, evidence - 1], axis=1))
    found = calibrated(p, safe, np.ones(3000, dtype=bool), [f"p{n // 3}" for n in range(3000)])
    losses = [-np.mean(np.log(np.where(safe == 1, q, 1 - q))) for q in (found, truth)]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
    naive = np.clip(p.mean(axis=1), 1e-3, 1 - 1e-3)
    assert -np.mean(np.log(np.where(safe == 1, naive, 1 - naive))) > losses[1] + 0.05


def test_what_says_nothing_gives_the_base_rate_and_what_is_unparsed_nothing():
    safe, inside, prompts = np.arange(40) % 2.0, np.ones(40, dtype=bool), [f"p{n}" for n in range(40)]
    assert calibrated(np.full((40, 1), 0.9), safe, inside, prompts) == pytest.approx(0.5, abs=0.15)
    against = calibrated(np.where(safe == 1, 0.1, 0.9)[:, None], safe, inside, prompts)
    assert against == pytest.approx(0.5, abs=0.15)
    p = np.where(safe == 1, 0.9, 0.1)[:, None].repeat(2, axis=1)
    p[0], p[1, 0] = np.nan, np.nan
    found = calibrated(p, safe, inside, prompts)
    assert np.isnan(found[0])
    # One judge's word is weaker evidence than both.
    assert 0.5 < found[1] < found[3]
