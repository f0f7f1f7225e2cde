"""No chunk of the fused head reads from the device: it runs on the meta device, whose tensors have no values."""

import dataclasses
from functools import partial

import pytest
import torch

from bfpo.engine import head as head_module
from bfpo.engine.head import FusedLoss, LogitShape
from bfpo.engine.layout import build_stream
from bfpo.groups import GroupLabels, LossInputs, TokenGroup, moved
from bfpo.objectives.registry import OBJECTIVES, build_objective
from engine.losses import loss_inputs

BATCH = [TokenGroup([5, 6], [[7] * size, [8] * 9, [9]]) for size in (3, 30, 12, 7)]
VOCABULARY = 64


def losses_on_meta(objective, labels):
    """The [G] losses of each chunk, of at most 60 tokens, and the gradients."""
    chunks = []

    def kept(logps, labels):
        chunks.append(objective(logps, labels))
        return chunks[-1]

    stream = build_stream(BATCH, "shared", "meta")
    sizes = len(stream.targets), VOCABULARY
    hidden, weight = (torch.empty(rows, 16, device="meta", requires_grad=True) for rows in sizes)
    inputs = LossInputs(kept, labels, loss_inputs(BATCH).reference)
    loss, _ = FusedLoss.apply(hidden, weight, stream, inputs, LogitShape(0.5, 3.0))
    return chunks, torch.autograd.grad(loss, (hidden, weight))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_reads_nothing_from_the_device(monkeypatch, name):
    # On anything but a CPU, chunks are larger.
    monkeypatch.setattr(head_module, "LOGITS_AT_ONCE", 60 * VOCABULARY // head_module._MORE_ON_GPU)
    reads = {field.name for field in dataclasses.fields(OBJECTIVES[name])}
    objective = build_objective(name, {"level": 0.3} if "level" in reads else {})
    if objective.estimates_kl:
        objective = partial(objective, kl=0.5)
    labels = loss_inputs(BATCH).labels
    labels = dataclasses.replace(labels, reward=labels.is_safe, weight=labels.is_safe.square(), is_checked=True)
    chunks, gradients = losses_on_meta(objective, labels)
    assert [(chunk.device.type, len(chunk)) for chunk in chunks] == [("meta", 2), ("meta", 2)]
    assert [part.shape for part in gradients] == [(13 + 40 + 22 + 17, 16), (VOCABULARY, 16)]


@pytest.mark.parametrize("read", [lambda group: int(group[-1]), torch.bincount, torch.nonzero])
def test_what_reads_from_the_device_would_fail(read):
    nothing = torch.zeros(0)

    def reads(logps, labels):
        read(logps.group)
        return logps.summed(logps.policy)

    with pytest.raises((RuntimeError, NotImplementedError)):
        losses_on_meta(reads, GroupLabels(nothing, nothing, nothing, nothing))


def test_copies_to_a_gpu_are_from_pinned_memory(monkeypatch):
    """Without a GPU there is neither, so both calls are only noted."""
    calls = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda values: calls.append("pinned") or values)
    monkeypatch.setattr(torch.Tensor, "to", lambda values, *given, **options: calls.append((given, options)) or values)
    moved(torch.zeros(2), "cuda:1")
    moved(torch.zeros(2), "cpu")
    assert calls == ["pinned", (("cuda:1",), {"non_blocking": True}), (("cpu",), {})]
