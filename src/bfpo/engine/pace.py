"""Speed of a model's layers and head on this machine, measured on one and two random layers of its shape."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bfpo.engine.forward import Engine
from bfpo.engine.layout import Layout
from bfpo.engine.micro_batches import batch_tokens
from bfpo.groups import GroupLabels, GroupLogps, LossInputs, TokenGroup

# Floating point operations of one measured pass over a layer, to keep the measurement short on a CPU.
_OPERATIONS = {"cpu": 4e10, "cuda": 4e13}
_RUNS = 3


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
    bf16: bool,
) -> Pace:
    """Measure the pace of a model on the data's own groups.

    Args:
        build: makes a random model with so many layers, as a pair of the bare model and the same with its adapter.
        groups: groups in random order, of which as many are used as the time allows.
        layout: layout of the groups.
        device: device to measure on.
        bf16: whether to compute in bf16 autocast.
    """
    one, two = (build(layers) for layers in (1, 2))
    for _, model in (one, two):
        model.to(device)
    counts = [sum(parameter.numel() for parameter in model.parameters()) for _, model in (one, two)]
    wanted = max(64.0, _OPERATIONS[device.type] / (6 * max(1, counts[1] - counts[0])))
    batch = list(groups[:1])
    for group in groups[1:]:
        if batch_tokens(batch, layout) >= wanted:
            break
        batch.append(group)
    computed, scored = batch_tokens(batch, layout), sum(len(answer) for group in batch for answer in group.answers)

    def speed(train: bool) -> Speed:
        first, second = (
            _seconds(Engine(base, layout, 0), model, batch, device, bf16, train) for base, model in (one, two)
        )
        layer = max(second - first, 0.0)
        return Speed(layer / computed, max(first - layer, 0.0) / scored)

    return Pace(speed(True), speed(False), _seconds_per_update(device))


def _seconds(
    engine: Engine, model: nn.Module, batch: Sequence[TokenGroup], device: torch.device, bf16: bool, train: bool
) -> float:
    """The shortest of several passes over a micro-batch."""
    none = torch.zeros(0)
    inputs = LossInputs(_sum, GroupLabels(none, none, none, none))
    model.train(train)

    def run() -> None:
        with engine.attached(), torch.set_grad_enabled(train):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                if not train:
                    engine.logps(model, batch).policy.sum().item()
                    return
                loss, _ = engine.loss(model, batch, inputs)
            loss.backward()
            loss.item()

    return shortest(run)


def _sum(logps: GroupLogps, labels: GroupLabels) -> Tensor:
    zeros = torch.zeros(int(logps.group[-1]) + 1, dtype=logps.policy.dtype, device=logps.policy.device)
    return zeros.index_add(0, logps.group, logps.policy)


def _seconds_per_update(device: torch.device) -> float:
    weight = torch.zeros(4_000_000, device=device, requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    optimizer = torch.optim.AdamW([weight], fused=True)

    def run() -> None:
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
        weight.sum().item()

    run()
    return shortest(run) / weight.numel()


def shortest(run: Callable[[], None]) -> float:
    """Time of the fastest of three runs, in seconds."""
    best = float("inf")
    for _ in range(_RUNS):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best
