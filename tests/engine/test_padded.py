"""Padded log-probabilities against one unpadded forward an answer, in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bfpo.engine.forward import Engine
from bfpo.engine.micro_batches import split
from bfpo.engine.padded import padded_logps
from bfpo.engine.reference_cache import ReferenceCache, answer_keys, fill_cache
from bfpo.groups import TokenGroup
from models import tiny_llama

MODEL = tiny_llama(dtype=torch.float64).eval()
ids = st.integers(3, 63)
groups = st.lists(
    st.builds(
        TokenGroup,
        prompt=st.lists(ids, min_size=1, max_size=9),
        answers=st.lists(st.lists(ids, min_size=1, max_size=12), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=5,
)


def plain_logps(model, group):
    """One forward without padding an answer, all logits, the textbook's sum."""
    sums = []
    for answer in group.answers:
        sequence = torch.tensor([[*group.prompt, *answer]])
        logps = model(sequence).logits.log_softmax(-1)[0, :-1]
        targets = sequence[0, 1:]
        sums.append(logps[torch.arange(len(targets)), targets][len(group.prompt) - 1 :].sum())
    return torch.stack(sums)


@given(groups)
def test_padded_equals_plain(batch):
    logps = padded_logps(MODEL, batch)
    expected = torch.cat([plain_logps(MODEL, group) for group in batch])
    torch.testing.assert_close(logps.policy, expected, rtol=1e-10, atol=1e-10)
    assert logps.tokens.tolist() == [len(answer) for group in batch for answer in group.answers]
    assert logps.group.tolist() == [i for i, group in enumerate(batch) for _ in group.answers]


def test_gradients_equal_the_plain_forward():
    batch = [TokenGroup([5, 6, 7], [[8, 9], [10]]), TokenGroup([11], [[12, 13, 14, 2]])]
    weights = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)
    gradients = []
    for logps in (
        padded_logps(MODEL, batch).policy,
        torch.cat([plain_logps(MODEL, group) for group in batch]),
    ):
        gradients.append(torch.autograd.grad((weights * logps).sum(), list(MODEL.parameters())))
    for padded, plain in zip(*gradients, strict=True):
        assert (padded - plain).norm() <= 1e-9 * plain.norm()


def test_bfloat16_logits_are_summed_in_float32():
    model = tiny_llama(dtype=torch.bfloat16).eval()
    assert padded_logps(model, [TokenGroup([5, 6], [[7, 8, 9]])]).policy.dtype == torch.float32


@given(groups, st.integers(1, 200))
def test_split_covers_every_group_once_within_the_budget(batch, budget):
    parts = split(batch, "padded", budget)
    assert sorted(index for part in parts for index in part) == list(range(len(batch)))
    for part in parts:
        padded = sum(len(batch[i].answers) for i in part) * max(batch[i].width for i in part)
        assert padded <= budget or len(part) == 1
    widths = [max(batch[i].width for i in part) for part in parts]
    assert widths == sorted(widths, reverse=True)


@given(groups, st.integers(1, 100))
def test_every_answer_finds_its_own_reference_whatever_the_split(batch, budget):
    cache = ReferenceCache(None, {})
    fill_cache(Engine(MODEL, "padded", budget), MODEL, [batch], cache)
    for group in batch:
        assert cache.get(answer_keys([group])) == pytest.approx(plain_logps(MODEL, group).tolist(), rel=1e-10)


def test_reference_restores_the_training_mode():
    model = tiny_llama()
    for training in (True, False):
        model.train(training)
        fill_cache(Engine(model, "padded", 10), model, [[TokenGroup([5], [[6]])]], ReferenceCache(None, {}))
        assert model.training is training
