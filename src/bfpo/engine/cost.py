"""Estimates of a training run's cost before it starts: tokens, memory and time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations import moe

from bfpo.engine.attention import attends_by_group
from bfpo.engine.forward import Engine
from bfpo.engine.head import logits_at_once
from bfpo.engine.layout import Layout, build_stream, stream_tokens
from bfpo.engine.micro_batches import batch_tokens, split
from bfpo.engine.pace import Pace
from bfpo.groups import TokenGroup

# Tokens of a prompt and an answer in the dummy batch whose activations are counted.
_PROMPT, _ANSWER = 64, 32
# Half a byte, one for the scale of every 64 weights, and a float32 for every 256 scales (QLoRA, section 3).
_BYTES_IN_4BIT = 1 / 2 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True)
class ModelSize:
    """The sizes of a model that determine its cost.

    Attributes:
        parameters: number of weights.
        trainable: number of trainable weights.
        hidden: width of the hidden state.
        layers: number of layers.
        vocabulary: number of output tokens.
        head_trains: whether the output head is trainable.
        quantized: number of weights in 4 bits.
    """

    parameters: int
    trainable: int
    hidden: int
    layers: int
    vocabulary: int
    head_trains: bool = True
    quantized: int = 0

    @classmethod
    def of(cls, model: nn.Module) -> ModelSize:
        """Sizes of a model, which may be on the meta device."""
        config = model.config.get_text_config()  # pyright: ignore
        return cls(
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            trainable=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            vocabulary=config.vocab_size,
            head_trains=any(parameter.requires_grad for parameter in model.get_output_embeddings().parameters()),  # pyright: ignore
            quantized=sum(parameter.numel() for parameter in model.parameters() if hasattr(parameter, "quant_state")),
        )


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a run.

    Attributes:
        tokens: tokens in the steps, with every prompt counted once for each of its answers.
        computed_tokens: tokens that go through the model: shared prompts once, padding included.
        memory_bytes: peak memory of training, without Python and its libraries.
        reference_seconds: time to score the reference, 0 without one.
        step_seconds: mean time of a step.
    """

    tokens: int
    computed_tokens: int
    memory_bytes: int
    reference_seconds: float
    step_seconds: float


@dataclass(frozen=True)
class Kept:
    """Bytes that autograd keeps between forward and backward, per token and independent of the number of tokens."""

    per_token: float
    fixed: float


def kept_for_backward(model: PreTrainedModel, *, bf16: bool, device: torch.device, layout: Layout = "shared") -> Kept:
    """Count the bytes that a forward pass keeps, on fake tensors; the fixed part is the weights cast to bf16.

    Args:
        model: a causal language model created under ``FakeTensorMode``, which must still be active.
        bf16: whether the forward runs in bf16 autocast.
        device: where it is going to run: attention keeps float32 copies on a CPU, where a stream takes it by pieces.
        layout: layout in which it is going to run.

    Raises:
        TypeError: if the model passes no stream to its attention, and so runs in the padded layout alone.
    """
    group = TokenGroup([0] * _PROMPT, [[0] * _ANSWER, [0] * _ANSWER])
    attention = "pieces" if device.type == "cpu" and layout != "padded" else "counted"
    two, four = (_kept_bytes(model, [group] * number, bf16, attention) for number in (2, 4))
    return Kept((four - two) / (2 * stream_tokens(group, "shared")), 2 * two - four)


def _kept_bytes(
    model: PreTrainedModel, groups: Sequence[TokenGroup], bf16: bool, attention: Literal["pieces", "counted"]
) -> int:
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}  # pyright: ignore[reportPrivateUsage]
    kept: dict[int, torch.UntypedStorage] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        address = storage._cdata  # pyright: ignore[reportPrivateUsage]
        if address not in weights:
            kept[address] = storage
        return tensor

    engine = Engine(model, "shared", max_tokens=0)
    with (
        _experts_without_values(),
        attends_by_group(model, attention),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        engine.hidden(model, build_stream(groups, "shared"))
        return sum(storage.nbytes() for storage in kept.values())


@contextmanager
def _experts_without_values() -> Iterator[None]:
    """Context in which experts multiply fake tensors of any type: torch's own product knows those of bfloat16 only.

    Transformers' own product, which stands in, keeps the same for the backward pass.
    """
    module: Any = moe
    usable, module._can_use_grouped_mm = module._can_use_grouped_mm, lambda *_: False
    try:
        yield
    finally:
        module._can_use_grouped_mm = usable


def estimate_cost(
    size: ModelSize,
    steps: Sequence[Sequence[TokenGroup]],
    *,
    layout: Layout,
    max_tokens: int,
    bf16: bool,
    checkpointing: bool,
    reference: Sequence[TokenGroup],
    kept: Kept,
    pace: Pace,
    device: torch.device,
) -> Cost:
    """Estimate the cost of steps, each given by its groups; ``reference`` are the groups that the reference scores.

    Memory is the sum of weights; two float32 Adam moments of trainable weights and their gradients; activations of the
    largest micro-batch plus one layer's share of them; and the head's logits with their gradient and softmax, and its
    own gradient. In steps of one micro-batch, gradients come as activations go, so only the larger of the two counts.
    """
    splits = [split(step, layout, max_tokens) for step in steps]
    batches = [[step[index] for index in batch] for step, parts in zip(steps, splits, strict=True) for batch in parts]
    computed = [batch_tokens(batch, layout) for batch in batches]
    groups = [group for step in steps for group in step]
    scored = [sum(map(len, group.answers)) for group in groups]
    frozen = size.parameters - size.trainable - size.quantized
    weights = 4 * size.trainable + (2 if bf16 else 4) * frozen + _BYTES_IN_4BIT * size.quantized
    layer = kept.per_token / size.layers
    # With checkpointing only each layer's input is kept, and one layer at a time is recomputed.
    activations = 4 * size.hidden * size.layers + layer if checkpointing else kept.per_token + layer
    logits = max(_logits(batch, layout) for batch in batches) * size.vocabulary
    if layout != "padded":
        logits = min(logits, max(logits_at_once(device), max(scored) * size.vocabulary))
    head = 3 * 4 * logits + (4 * size.vocabulary * size.hidden if size.head_trains else 0)
    passing, gradients = max(computed) * activations + kept.fixed + head, 4 * size.trainable
    accumulates = any(len(parts) > 1 for parts in splits)
    at_once = passing + gradients if accumulates else max(passing, gradients)
    return Cost(
        tokens=sum(len(group.prompt) * len(group.answers) for group in groups) + sum(scored),
        computed_tokens=sum(computed),
        memory_bytes=round(weights + 8 * size.trainable + at_once),
        reference_seconds=pace.scoring.seconds(
            size.layers,
            sum(batch_tokens([group], layout) for group in reference),
            sum(len(answer) for group in reference for answer in group.answers),
        ),
        step_seconds=pace.training.seconds(size.layers, sum(computed), sum(scored)) / len(steps)
        + pace.update * size.trainable,
    )


def _logits(batch: Sequence[TokenGroup], layout: Layout) -> int:
    """Positions of a micro-batch with logits: in the padded layout, all of every row after the shortest prompt."""
    if layout == "padded":
        after = max(group.width for group in batch) - min(len(group.prompt) for group in batch) + 1
        return after * sum(len(group.answers) for group in batch)
    return sum(len(answer) for group in batch for answer in group.answers)
