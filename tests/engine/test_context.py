"""Tests of tokens that are read but not scored, such as a user's turn inside an answer."""

import pytest
import torch

from bfpo.engine.forward import Engine
from bfpo.engine.padded import padded_logps
from bfpo.engine.reference_cache import answer_keys
from bfpo.groups import GroupLabels, LossInputs, TokenGroup
from bfpo.objectives.pairwise import DPO
from models import tiny_llama

GROUPS = [
    TokenGroup([5, 6, 7], [[8, 9, 10, 11, 12], [13, 14]], [[2, 3], []]),
    TokenGroup([20, 21], [[22, 23, 24], [25, 26, 27, 28]], [[], [0, 2]]),
]
LABELS = GroupLabels(torch.ones(4), torch.tensor([0, 2]), torch.tensor([1, 3]), torch.ones(2))


def token_logps(model, group, at):
    """Log-probability of each of an answer's tokens, from a plain forward of its own."""
    ids = torch.tensor([[*group.prompt, *group.answers[at]]])
    logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return logps[len(group.prompt) - 1 :]


def test_scored_places_are_all_but_the_context():
    assert list(GROUPS[0].scored(0)) == [0, 1, 4]
    assert list(GROUPS[0].scored(1)) == [0, 1]
    assert list(TokenGroup([1], [[2, 3]]).scored(0)) == [0, 1]


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
def test_only_scored_tokens_count_in_every_layout(layout):
    model = tiny_llama(dtype=torch.float64)
    engine = Engine(model, layout, 64)
    with engine.attached():
        logps = engine.logps(model, GROUPS)
    expected = [token_logps(model, group, at)[list(group.scored(at))].sum() for group in GROUPS for at in range(2)]
    assert torch.allclose(logps.policy, torch.stack(expected))
    assert logps.tokens.tolist() == [3, 2, 3, 2]


def test_the_fused_loss_has_the_gradient_of_the_padded_one():
    gradients = []
    for layout in ("shared", "padded"):
        model = tiny_llama(dtype=torch.float64)
        engine = Engine(model, layout, 64)
        reference = padded_logps(tiny_llama(seed=1, dtype=torch.float64), GROUPS).policy.detach()
        with engine.attached():
            loss, _ = engine.loss(model, GROUPS, LossInputs(DPO(beta=0.1), LABELS, reference))
            loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert torch.allclose(*gradients)


def test_the_reference_of_an_answer_depends_on_what_is_scored():
    plain = TokenGroup(GROUPS[0].prompt, GROUPS[0].answers)
    assert (answer_keys([plain]) == answer_keys(GROUPS[:1])).tolist() == [False, True]
    assert (answer_keys([plain]) == answer_keys([TokenGroup(plain.prompt, plain.answers, [[], []])])).all()
