"""BFPO's optimum: a tabular policy trained with `bfpo_loss` reaches pi_ref exp(R/tau) / Z."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bfpo import GlobalPreference, bfpo_loss
from bfpo.groups import GroupLabels
from bfpo.objectives.bfpo import BFPO


def pair_labels(p_beats, is_safe, preference):
    """G of every ordered pair, written out from the definition with its own arithmetic."""
    b1, alpha = preference.b1, preference.alpha
    answers = len(is_safe)
    labels = torch.zeros(answers, answers, dtype=torch.float64)
    for i, j in itertools.product(range(answers), repeat=2):
        if i != j:
            forward = (b1 * is_safe[i] - is_safe[j]) / (b1 - 1) - alpha
            backward = (b1 * is_safe[j] - is_safe[i]) / (b1 - 1) - alpha
            labels[i, j] = p_beats[i, j] * forward - (1 - p_beats[i, j]) * backward
    return labels


def trained_policy(reference, p_beats, is_safe, preference, tau):
    """Minimize the loss over all ordered pairs, weighted by who is more helpful, with LBFGS in float64."""
    answers = len(is_safe)
    logits = torch.zeros(answers, dtype=torch.float64, requires_grad=True)
    first, second = (torch.tensor(side) for side in zip(*itertools.permutations(range(answers), 2), strict=True))
    optimizer = torch.optim.LBFGS(
        [logits],
        lr=1,
        max_iter=2000,
        tolerance_grad=1e-14,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        logp, ref = logits.log_softmax(0), reference.log()
        loss = bfpo_loss(
            logp[first], logp[second], ref[first], ref[second], is_safe[first], is_safe[second],
            chosen_is_better=p_beats[first, second], beta=tau, labeling=preference,
        ).mean()  # fmt: skip
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    return logits.detach().softmax(0)


def random_world(seed, answers, soft):
    generator = torch.Generator().manual_seed(seed)
    score = torch.randn(answers, generator=generator, dtype=torch.float64)
    difference = score[:, None] - score[None, :]
    p_beats = difference.sigmoid() if soft else (difference > 0).double() + 0.5 * (difference == 0)
    safety = torch.rand(answers, generator=generator, dtype=torch.float64)
    reference = torch.rand(answers, generator=generator, dtype=torch.float64) + 0.1
    return reference / reference.sum(), p_beats, safety if soft else safety.round()


@pytest.mark.parametrize("soft", [False, True], ids=["hard labels", "soft labels"])
@pytest.mark.parametrize(("seed", "answers", "tau"), [(0, 4, 0.3), (1, 6, 0.5), (2, 5, 1.0), (3, 8, 0.4)])
@pytest.mark.parametrize("preference", [GlobalPreference(), GlobalPreference(2.0, 0.2)], ids=str)
def test_minimiser_is_the_tilted_reference(soft, seed, answers, tau, preference):
    reference, p_beats, is_safe = random_world(seed, answers, soft)
    # R is the mean over K answers, the answer itself among them with G = 0: K, not K - 1.
    reward = pair_labels(p_beats, is_safe, preference).sum(1) / answers
    optimum = (reference.log() + reward / tau).softmax(0)
    policy = trained_policy(reference, p_beats, is_safe, preference, tau)
    torch.testing.assert_close(policy, optimum, rtol=0, atol=1e-6)


@pytest.mark.parametrize("preference", [GlobalPreference(), GlobalPreference(3.0, 0.0), GlobalPreference(1.7, 0.3)])
def test_reward_is_the_closed_form_when_safety_and_helpfulness_are_independent(preference):
    """Every combination of 3 helpfulness levels and 4 safety values: independent by construction."""
    level = torch.tensor([0.0, 0.7, 1.9], dtype=torch.float64).repeat_interleave(4)
    is_safe = torch.tensor([0.0, 1.0, 1.0, 0.35], dtype=torch.float64).repeat(3)
    p_beats = (level[:, None] - level[None, :]).sigmoid()
    # The self-comparison, which the pairs leave out, is a tie of G = 0 = G(y, y) and costs nothing.
    reward = pair_labels(p_beats, is_safe, preference).sum(1) / 12
    closed = preference.reward(p_beats.mean(1), is_safe, is_safe.mean())
    torch.testing.assert_close(reward - reward.mean(), closed - closed.mean(), rtol=0, atol=1e-12)


shares = st.floats(0.01, 0.99)


@given(safe_help=shares, unsafe_help=shares, mean_safety=shares, b3=st.floats(0.01, 20))
def test_the_price_b3_decides_between_safety_and_help_only_if_alpha_is_small(safe_help, unsafe_help, mean_safety, b3):
    help_, is_safe = (torch.tensor(pair, dtype=torch.float64) for pair in ((safe_help, unsafe_help), (1.0, 0.0)))

    def rewards(alpha):
        return GlobalPreference(1 + 1 / b3, alpha).reward(help_, is_safe, torch.tensor(mean_safety).double()).tolist()

    # From alpha = E_s/2 on the unsafe answer's reward is at most the constant's, and the safe one's above it.
    for alpha in (mean_safety / 2, 0.5, (1 + mean_safety) / 2):
        safe, unsafe = rewards(alpha)
        assert safe > unsafe
    # Beyond (1 + E_s)/2 help lowers a safe answer's reward, too, so that enough of it is worse than harm without help.
    safe, unsafe = GlobalPreference(1 + 1 / 0.1, 0.8).reward(
        torch.tensor([1.0, 0.0]).double(), is_safe, torch.tensor(0.2).double()
    )
    assert safe < unsafe
    safe, unsafe = rewards(0.0)
    least = mean_safety * unsafe_help - (1 + mean_safety) * safe_help
    assert (safe > unsafe) == (b3 > least) or abs(b3 - least) < 1e-9


@st.composite
def harmful_answers(draw):
    """Helpfulness, cost, safety and alpha of answers with harm in three categories; safe ones may help more or less."""
    answers, categories = draw(st.integers(2, 7)), 3
    level = st.sampled_from([0.0, 0.0, 1 / 3, 2 / 3, 1.0])
    score = torch.tensor(draw(st.lists(st.floats(-2, 2), min_size=answers, max_size=answers)), dtype=torch.float64)
    harm = torch.tensor([[draw(level) for _ in range(categories)] for _ in range(answers)], dtype=torch.float64)
    prices = torch.tensor([draw(st.floats(0, 5)) for _ in range(categories)], dtype=torch.float64)
    is_safe = (harm == 0).all(1).double()
    drawn_to = draw(st.floats(-2, 2))
    return score + drawn_to * is_safe, harm @ prices, is_safe, draw(st.floats(-1, 1.5))


@given(harmful_answers())
def test_reward_with_prices_is_exact_whatever_safety_and_helpfulness_have_in_common(answers):
    """R(y) = s P - 2 alpha P + E_s P_safe - sum_c b_c u_c + const, by enumeration of all pairs, themselves included."""
    score, cost, is_safe, alpha = answers
    count = len(score)
    p_beats = (score[:, None] - score[None, :]).sigmoid()
    first, second = (side.flatten() for side in torch.meshgrid(*[torch.arange(count)] * 2, indexing="ij"))
    labels = GroupLabels(is_safe, first, second, p_beats.flatten(), cost=cost)
    reward = BFPO(alpha=alpha).target(labels).reshape(count, count).mean(1)
    p_help, with_safe = p_beats.mean(1), (p_beats * is_safe).mean(1)
    closed = is_safe * p_help - 2 * alpha * p_help + with_safe - cost
    torch.testing.assert_close(reward - reward.mean(), closed - closed.mean(), rtol=0, atol=1e-12)


@given(harmful_answers(), st.floats(1.2, 9))
def test_one_price_b3_of_unsafe_answers_is_the_plain_label(answers, b1):
    score, _, is_safe, alpha = answers
    first, second = torch.triu_indices(len(score), len(score), 1)
    labels = GroupLabels(is_safe, first, second, (score[first] - score[second]).sigmoid())
    expected = GlobalPreference(b1, alpha).target(is_safe[first], is_safe[second], labels.first_is_better)
    priced = replace(labels, cost=(1 - is_safe) / (b1 - 1))
    for found in (labels, priced):
        torch.testing.assert_close(BFPO(b1=b1, alpha=alpha).target(found), expected, rtol=0, atol=1e-12)


def test_gradient_on_soft_labels_is_the_mean_gradient_over_hard_labels():
    """All eight hard labelings of each pair, weighted by their probability: exact, not sampled."""
    generator = torch.Generator().manual_seed(5)
    chosen, rejected, safe_w, safe_l, p = torch.rand(5, 6, generator=generator, dtype=torch.float64)
    chosen, rejected = (-9 * chosen).requires_grad_(), (-9 * rejected).requires_grad_()
    zeros = torch.zeros(6, dtype=torch.float64)

    def gradients(loss):
        return torch.stack(torch.autograd.grad(loss.sum(), [chosen, rejected]))

    soft = gradients(bfpo_loss(chosen, rejected, zeros, zeros, safe_w, safe_l, chosen_is_better=p, beta=0.3))
    mean = torch.zeros_like(soft)
    for w, l, first_wins in itertools.product([0.0, 1.0], repeat=3):
        weight = (
            (w * safe_w + (1 - w) * (1 - safe_w))
            * (l * safe_l + (1 - l) * (1 - safe_l))
            * (first_wins * p + (1 - first_wins) * (1 - p))
        )
        # A pair in reverse order enters the loss as the reversed pair.
        if first_wins:
            loss = bfpo_loss(chosen, rejected, zeros, zeros, w, l, beta=0.3)
        else:
            loss = bfpo_loss(rejected, chosen, zeros, zeros, l, w, beta=0.3)
        mean += gradients(weight * loss)
    torch.testing.assert_close(soft, mean, rtol=1e-12, atol=1e-12)
