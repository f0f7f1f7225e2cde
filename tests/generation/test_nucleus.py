"""The tokens of the fast sampler are those of the plain one, which sorts the whole vocabulary in float64."""

import pytest
import torch

from bfpo.generation import nucleus
from bfpo.generation.nucleus import sample_sorted, sample_tokens


def scores_of(kind, rows, words, generator):
    scores = torch.randn(rows, words, generator=generator)
    if kind == "peaked":
        return 4 * scores
    if kind == "flat":
        return 0.05 * scores
    if kind == "ties":
        return (2 * scores).round()
    if kind == "masked":
        hidden = torch.rand(rows, words, generator=generator) < 0.99
        hidden[:, 0] = False
        return scores.masked_fill(hidden, -torch.inf)
    return scores


@pytest.mark.parametrize("kind", ["plain", "peaked", "flat", "ties", "masked"])
@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 0.95), (1.0, 1.0), (0.3, 0.5), (2.0, 0.9), (1.0, 1e-6)])
def test_same_tokens_as_the_whole_sort(kind, temperature, top_p):
    generator = torch.Generator().manual_seed(0)
    for words in (17, 300, 5_000):
        scores = scores_of(kind, 64, words, generator)
        uniform = torch.rand(64, dtype=torch.float64, generator=generator)
        uniform[:4] = torch.tensor([0.0, 1 - 2**-53, 0.5, 1e-12])
        fast = sample_tokens(scores.clone(), uniform, temperature, top_p)
        assert fast.equal(sample_sorted(scores, uniform, temperature, top_p))


def test_numbers_at_the_edge_between_two_tokens_are_decided_in_float64():
    """For every row, the number that falls on the edge after its first tokens, and its neighbors."""
    scores = 3 * torch.randn(32, 2_000, generator=torch.Generator().manual_seed(1))
    reached = (scores.double() / 0.7).softmax(-1).sort(descending=True).values.cumsum(-1)
    mass = torch.stack([row[: int((row < 0.9).sum()) + 1][-1] for row in reached])
    for at in range(3):
        edge = reached[:, at] / mass
        for uniform in (edge, edge * (1 - 2**-52), edge * (1 + 2**-52)):
            uniform = uniform.clamp(max=1 - 2**-53)
            assert sample_tokens(scores, uniform, 0.7, 0.9).equal(sample_sorted(scores, uniform, 0.7, 0.9))


def test_peaked_rows_are_not_sorted(monkeypatch):
    """Nearly every row of a model's own scores is decided by its likeliest tokens."""
    scores = 4 * torch.randn(256, 5_000, generator=torch.Generator().manual_seed(2))
    uniform = torch.rand(256, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    rows = []
    monkeypatch.setattr(
        nucleus, "sample_sorted", lambda scores, *rest: rows.append(len(scores)) or sample_sorted(scores, *rest)
    )
    nucleus.sample_tokens(scores, uniform, 0.7, 0.95)
    assert sum(rows) < 25


def test_frequencies_are_those_of_the_renormalized_nucleus():
    logits = torch.cat([torch.tensor([2.0, 1.0, 0.0]), torch.full((400,), -3.0)]).expand(100_000, -1)
    uniform = torch.rand(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    tokens = sample_tokens(logits.clone(), uniform, 1.0, 0.3)
    probability = logits[0].double().softmax(-1)[:2]
    expected = probability / probability.sum() if probability[0] < 0.3 else torch.tensor([1.0, 0.0])
    found = torch.bincount(tokens, minlength=403)[:2] / 100_000
    torch.testing.assert_close(found.double(), expected.double(), atol=0.01, rtol=0)
