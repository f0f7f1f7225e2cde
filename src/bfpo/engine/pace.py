"""Speed of a model's layers and head on this machine, measured on random layers of its shape."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bfpo.engine.forward import Engine
from bfpo.engine.layout import Layout
from bfpo.engine.micro_batches import batch_tokens
from bfpo.groups import GroupLabels, LossInputs, TokenGroup

# Floating point operations of one measured pass over a layer, to keep the measurement short on a CPU.
_OPERATIONS = {"cpu": 4e10, "cuda": 4e13}
_RUNS = 3
# A layer's time is a difference, whose error counts as often as the model has layers. So three more layers are measured
# if they have fewer weights than this, and else one.
_SMALL = 50_000_000


@dataclass(frozen=True)
class Speed:
    """Seconds per token of one layer, and per scored token of everything outside the layers."""

    layer: float
    head: float

    def seconds(self, layers: int, computed: int, scored: int) -> float:
        """Time for so many tokens through a model with so many layers."""
        return self.layer * layers * computed + self.head * scored


@dataclass(frozen=True)
class Pace:
    """Speed of forward and backward pass together, of scoring without gradients, and seconds per updated weight."""

    training: Speed
    scoring: Speed
    update: float


def measure_pace(
    build: Callable[[int], tuple[Any, nn.Module]],
    groups: Sequence[TokenGroup],
    layout: Layout,
    device: torch.device,
    *,
    layer_weights: int,
    bf16: bool,
) -> Pace:
    """Measure the pace of a model on the data's own groups.

    Args:
        build: makes a random model with so many layers, as a pair of the bare model and the same with its adapter.
        groups: groups in random order, of which as many are used as the time allows.
        layout: layout of the groups.
        device: device to measure on.
        layer_weights: number of a layer's weights.
        bf16: whether to compute in bf16 autocast.
    """
    more = 3 if layer_weights < _SMALL else 1
    few, many = (build(layers) for layers in (1, 1 + more))
    for _, model in (few, many):
        model.to(device)
    wanted = max(64.0, _OPERATIONS.get(device.type, _OPERATIONS["cpu"]) / (6 * layer_weights))
    batch = list(groups[:1])
    for group in groups[1:]:
        if batch_tokens(batch, layout) >= wanted:
            break
        batch.append(group)
    computed, scored = batch_tokens(batch, layout), sum(len(answer) for group in batch for answer in group.answers)

    def speed(train: bool) -> Speed:
        # In turns, because the machine's speed changes while it measures.
        first, second = shortest(
            *(_pass(Engine(base, layout, 0), model, batch, device, bf16, train) for base, model in (few, many))
        )
        layer = max(second - first, 0.0) / more
        return Speed(layer / computed, max(first - layer, 0.0) / scored)

    return Pace(speed(True), speed(False), _seconds_per_update(device))


def _pass(
    engine: Engine, model: nn.Module, batch: Sequence[TokenGroup], device: torch.device, bf16: bool, train: bool
) -> Callable[[], None]:
    """A pass over a micro-batch."""
    none = torch.zeros(0)
    inputs = LossInputs(lambda logps, _: logps.summed(logps.policy), GroupLabels(none, none, none, none))

    def run() -> None:
        model.train(train)
        with engine.attached(), torch.set_grad_enabled(train):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                if not train:
                    engine.logps(model, batch).policy.sum().item()
                    return
                loss, _ = engine.loss(model, batch, inputs)
            loss.backward()
            loss.item()

    return run


def _seconds_per_update(device: torch.device) -> float:
    weight = torch.zeros(4_000_000, device=device, requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    optimizer = torch.optim.AdamW([weight], fused=True)

    def run() -> None:
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
        weight.sum().item()

    run()
    [seconds] = shortest(run)
    return seconds / weight.numel()


def shortest(*runs: Callable[[], None]) -> list[float]:
    """Time of the fastest of three calls of each, in seconds; they take turns."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(_RUNS):
        for run, taken in zip(runs, times, strict=True):
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    return [min(taken) for taken in times]
