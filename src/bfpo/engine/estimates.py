"""What a training run will need, estimated before it starts: arithmetic, memory and time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from bfpo.engine.logps import TokenGroup, split_by_tokens

# Backward costs two forward passes: one for the gradients of the inputs, one for those of the weights.
_BACKWARD = 2
# Values of the width of the hidden state that a Llama-like layer keeps for its backward pass, per token.
_KEPT_PER_LAYER = 16
# Share of the matmul peak that the padded engine reaches on real batches.
_EXPECTED_SHARE_OF_PEAK = 0.4


@dataclass(frozen=True)
class ModelSize:
    """What the estimates need to know of a model.

    Attributes:
        parameters: all weights.
        trainable: weights that train.
        hidden: width of the hidden state.
        layers: number of layers.
        vocabulary: number of tokens of the output head.
    """

    parameters: int
    trainable: int
    hidden: int
    layers: int
    vocabulary: int

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
        )


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a run.

    Attributes:
        tokens: tokens of one epoch, padding not counted.
        padded_tokens: tokens that go through the model, padding included.
        memory_bytes: peak memory of training.
        seconds: time of one epoch, the reference pass included.
    """

    tokens: int
    padded_tokens: int
    memory_bytes: int
    seconds: float


def estimate(
    size: ModelSize,
    groups: Sequence[TokenGroup],
    *,
    max_tokens: int,
    bf16: bool,
    checkpointing: bool,
    reference: bool,
    flops_per_second: float,
) -> Estimate:
    """Estimate one epoch over ``groups``.

    A forward pass takes 2 floating point operations a weight and token, its backward twice as much for the
    activations and, where weights train, as much again for them. Memory is weights, gradients and two float32
    Adam moments of what trains, and the activations and logits of the largest micro-batch.
    """
    batches = split_by_tokens(groups, max_tokens)
    padded = [sum(len(groups[i].answers) for i in batch) * max(groups[i].width for i in batch) for batch in batches]
    share_trained = size.trainable / size.parameters
    passes = 1 + (_BACKWARD - 1) + share_trained + (1 if reference else 0)
    flops = 2 * size.parameters * sum(padded) * passes
    bytes_per_value = 2 if bf16 else 4
    weights = 4 * size.trainable + bytes_per_value * (size.parameters - size.trainable)
    layers_kept = 1 + size.layers / _KEPT_PER_LAYER if checkpointing else size.layers
    per_token = bytes_per_value * _KEPT_PER_LAYER * size.hidden * layers_kept + 3 * 4 * size.vocabulary
    return Estimate(
        tokens=sum(len(group.prompt) * len(group.answers) + sum(map(len, group.answers)) for group in groups),
        padded_tokens=sum(padded),
        memory_bytes=round(weights + 12 * size.trainable + max(padded) * per_token),
        seconds=flops / (flops_per_second * _EXPECTED_SHARE_OF_PEAK),
    )


def measure_flops(device: torch.device, dtype: torch.dtype, width: int = 2048) -> float:
    """Floating point operations a second of a square matrix product on this device, best of three."""
    left = torch.randn(width, width, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        product = left @ left
        product[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 2 * width**3 / best
