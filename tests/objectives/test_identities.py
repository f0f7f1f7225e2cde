"""The identities of docs/concepts.md, by enumeration and against tabular optima; none assumes independent labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.objectives.bfpo import GlobalPreference

UNIT = st.floats(0, 1)


def world(seed, answers=7):
    """Random answers: probability under the reference, safety, and a helpfulness order that depends on safety."""
    rng = np.random.default_rng(seed)
    reference = rng.dirichlet(np.ones(answers))
    safe = rng.random(answers)
    quality = rng.normal(size=answers) - rng.normal() * 3 * safe
    first_wins = 1 / (1 + np.exp(quality[None, :] - quality[:, None]))
    return reference, safe, first_wins


def expected_labels(labeling, safe, first_wins):
    """[K, K] G of every ordered pair, by the labeling function itself."""
    return np.array(
        [
            [float(labeling.target(safe[i], safe[j], first_wins[i, j])) for j in range(len(safe))]
            for i in range(len(safe))
        ]
    )


@given(UNIT, UNIT, UNIT, st.floats(1.1, 40), st.floats(-1, 2))
def test_the_label_is_help_scaled_by_safety_plus_safety(s, t, p, b1, alpha):
    labeling = GlobalPreference(b1=b1, alpha=alpha)
    expected = (2 * p - 1) * ((s + t) / 2 - alpha) + (0.5 + labeling.b3) * (s - t)
    assert float(labeling.target(s, t, p)) == pytest.approx(expected, abs=1e-5)


@given(UNIT)
def test_at_the_papers_constants_the_order_of_mixed_pairs_is_their_safety_alone(p):
    """Beside a hand-made order, the safe answer first: twice its weight on mixed pairs, the reverse on unsafe ones."""
    label = GlobalPreference().target
    assert float(label(1, 0, p)) == pytest.approx(1)
    assert float(label(0, 1, p)) == pytest.approx(-1)
    assert float(label(1, 1, p)) == pytest.approx((2 * p - 1) / 2, abs=1e-6)
    assert float(label(0, 0, p)) == pytest.approx(-(2 * p - 1) / 2, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_the_reward_needs_no_independence(seed):
    """R(y) = s (P + b3) - 2 alpha P + E_s P_safe + const, with P_safe the chance to beat a random *safe* answer."""
    reference, safe, first_wins = world(seed)
    labeling = GlobalPreference(b1=2.7, alpha=0.3)
    implied = expected_labels(labeling, safe, first_wins) @ reference
    help_, mean_safe = first_wins @ reference, reference @ safe
    beats_safe = first_wins @ (reference * safe) / mean_safe
    stated = safe * (help_ + labeling.b3) - 2 * labeling.alpha * help_ + mean_safe * beats_safe
    assert np.ptp(implied - stated) < 1e-5
    # The form that takes the two as independent is off in such a world.
    assert np.ptp(implied - (safe + mean_safe - 2 * labeling.alpha) * (help_ + labeling.b3)) > 1e-3


@pytest.mark.parametrize(("b1", "alpha", "threshold"), [(3.0, 0.5, 1 / 3), (3.0, 0.2, 0.8 / 1.5), (2.0, 0.5, 0.25)])
def test_prompts_that_look_alike_are_refused_from_a_share_of_harm_on(b1, alpha, threshold):
    """Complying is the more helpful answer, and unsafe where the prompt, which looks like others, is harmful."""
    labeling = GlobalPreference(b1=b1, alpha=alpha)
    assert labeling.refusal_threshold == pytest.approx(threshold)

    def label(harmful):
        return (1 - harmful) * float(labeling.target(1, 1)) + harmful * float(labeling.target(0, 1))

    assert label(threshold - 1e-3) > 0 > label(threshold + 1e-3)


@pytest.mark.parametrize("answers", [2, 3, 5])
def test_a_groups_loss_is_a_regression_on_scores_of_its_answers(answers):
    rng = np.random.default_rng(answers)
    safe, first_wins = rng.random(answers), rng.random((answers, answers))
    first_wins = np.triu(first_wins, 1) + np.tril(1 - first_wins.T, -1) + np.eye(answers) / 2
    labels = expected_labels(GlobalPreference(), safe, first_wins)
    scores, beta = labels.mean(1), 0.3

    def losses(ratios):
        pairs = [(i, j) for i in range(answers) for j in range(i)]
        by_pair = np.mean([(ratios[i] - ratios[j] - labels[i, j] / beta) ** 2 for i, j in pairs])
        by_answer = 2 / (answers - 1) * np.sum((ratios - ratios.mean() - scores / beta) ** 2)
        return by_pair - by_answer

    constants = [losses(rng.normal(size=answers)) for _ in range(10)]
    assert np.ptp(constants) < 1e-6


def test_policies_of_all_b3_are_geometric_mixtures_of_two():
    reference, safe, first_wins = world(3)

    def optimum(b3):
        rewards = expected_labels(GlobalPreference(b1=1 + 1 / b3), safe, first_wins) @ reference
        weights = reference * np.exp(rewards / 0.2)
        return weights / weights.sum()

    low, high = optimum(0.1), optimum(2.0)
    for b3 in np.linspace(0.1, 2, 9):
        share = (b3 - 0.1) / 1.9
        mixed = low ** (1 - share) * high**share
        np.testing.assert_allclose(mixed / mixed.sum(), optimum(b3), rtol=1e-4)


def test_b3_is_the_multiplier_of_a_bound_on_unsafe_answers():
    """Among policies with at most so many unsafe answers the best one is that of some b3 (Lagrange)."""
    from scipy.optimize import minimize

    reference, safe, first_wins = world(5)
    beta, b3 = 0.3, 0.8
    base = expected_labels(GlobalPreference(b1=1 + 1 / 1e-6), safe, first_wins) @ reference
    rewards = expected_labels(GlobalPreference(b1=1 + 1 / b3), safe, first_wins) @ reference
    # The label's derivative by b3 is the difference in safety, so the reward's is the safety.
    np.testing.assert_allclose(rewards - rewards.mean() - (base - base.mean()), b3 * (safe - safe.mean()), atol=1e-4)
    policy = reference * np.exp(rewards / beta)
    policy /= policy.sum()

    def loss(logits):
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
        return -(chances @ base) + beta * chances @ np.log(chances / reference), chances

    bounded = minimize(
        lambda logits: loss(logits)[0],
        np.log(reference),
        constraints={"type": "ineq", "fun": lambda logits: (policy @ (1 - safe)) - loss(logits)[1] @ (1 - safe)},
        options={"ftol": 1e-12, "maxiter": 500},
        method="SLSQP",
    )
    np.testing.assert_allclose(loss(bounded.x)[1], policy, atol=1e-3)
