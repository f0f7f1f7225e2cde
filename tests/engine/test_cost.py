"""Cost estimates: their counts and their scaling."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bfpo.engine import cost as cost_module
from bfpo.engine.cost import Kept, ModelSize, estimate_cost, measure_flops
from bfpo.engine.trainable import select_trainable
from bfpo.groups import TokenGroup
from models import tiny_llama

GROUPS = [TokenGroup([1] * 4, [[2] * 3, [2] * 6]), TokenGroup([1] * 2, [[2], [2]])]
SIZE = ModelSize(parameters=1000, trainable=1000, hidden=8, layers=2, vocabulary=50)


def cost(size=SIZE, groups=GROUPS, **changes):
    options = {
        "max_tokens": 1000,
        "layout": "padded",
        "kept": Kept(96.0, 0.0),
        "bf16": False,
        "checkpointing": False,
        "reference": False,
        "flops_per_second": 1e6,
    }
    return estimate_cost(size, groups, **(options | changes))


def test_tokens_with_and_without_padding():
    assert cost().tokens == (4 + 3) + (4 + 6) + 2 * (2 + 1)
    assert cost().computed_tokens == 4 * 10
    assert cost(max_tokens=1).computed_tokens == 2 * 10 + 2 * 3


def test_shared_prompts_are_computed_once_and_last_tokens_never():
    assert cost(layout="shared").computed_tokens == (4 + 2 + 5) + 2
    assert cost(layout="packed").computed_tokens == (4 + 2 + 4 + 5) + (2 + 2)


def test_model_sizes_are_the_models():
    model = tiny_llama()
    select_trainable(model, "down_proj")
    size = ModelSize.of(model)
    assert size.trainable == 2 * 32 * 64
    assert (size.hidden, size.layers, size.vocabulary) == (32, 2, 64)
    assert size.parameters == sum(p.numel() for p in model.parameters())


def test_a_step_of_all_weights_costs_three_forwards_and_the_reference_a_fourth():
    forward = 2 * 1000 * 40 / (1e6 * 0.6)
    assert cost().seconds == pytest.approx(3 * forward)
    assert cost(reference=True).seconds == pytest.approx(4 * forward)
    frozen = ModelSize(parameters=1000, trainable=0, hidden=8, layers=2, vocabulary=50)
    assert cost(frozen).seconds == pytest.approx(2 * forward)


def test_memory_falls_with_frozen_weights_checkpointing_and_smaller_micro_batches():
    half = ModelSize(parameters=1000, trainable=500, hidden=8, layers=2, vocabulary=50)
    assert cost().memory_bytes - cost(half).memory_bytes == 12 * 500
    deep = {"size": ModelSize(parameters=1000, trainable=1000, hidden=8, layers=32, vocabulary=50)}
    deep["kept"] = Kept(32 * 16 * 8 * 4.0, 0.0)
    assert cost(**deep, checkpointing=True).memory_bytes < cost(**deep).memory_bytes
    assert cost(max_tokens=1).memory_bytes < cost().memory_bytes


def test_measured_speed_is_the_work_of_a_product_over_the_shortest_of_its_times(monkeypatch):
    """With a fake clock for the time of each product, and torch's count of its operations."""
    seconds, now, readings = [4.0, 0.5, 2.0, 1.0], 0.0, []
    for number, took in enumerate(seconds):
        start = now + 10 * number
        now = start + took
        readings += [start, now]
    clock = iter(readings)
    monkeypatch.setattr(cost_module.time, "perf_counter", lambda: next(clock))
    with FlopCounterMode(display=False) as counter:
        speed = measure_flops(torch.device("cpu"), torch.float32, width=64)
    assert speed == counter.get_total_flops() / len(seconds) / min(seconds)
    assert next(clock, None) is None
