"""Cost estimates: their counts and their scaling."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations import moe

from bfpo.engine import pace as pace_module
from bfpo.engine.cost import Kept, ModelSize, estimate_cost, kept_for_backward
from bfpo.engine.pace import Pace, Speed, measure_pace
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
        "reference": (),
        "pace": Pace(Speed(2e-3, 3e-3), Speed(1e-3, 1e-3), 1e-5),
        "device": torch.device("cpu"),
    }
    return estimate_cost(size, [groups], **(options | changes))


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


def test_time_is_that_of_layers_head_and_update():
    scored = 3 + 6 + 1 + 1
    found = cost(reference=[*GROUPS, GROUPS[1]])  # every row once, however often the steps have it
    assert found.step_seconds == pytest.approx(2e-3 * 2 * 40 + 3e-3 * scored + 1e-5 * 1000)
    assert found.reference_seconds == pytest.approx(1e-3 * 2 * (2 * 10 + 2 * 3 + 2 * 3) + 1e-3 * (scored + 2))
    assert cost().reference_seconds == 0


def test_micro_batches_stay_within_a_step():
    """Steps of one group can't fill a micro-batch of two."""
    options = {"layout": "shared", "max_tokens": 1000, "kept": Kept(1e6, 0.0), "bf16": False, "checkpointing": False}
    options |= {"reference": (), "pace": Pace(Speed(0, 0), Speed(0, 0), 0), "device": torch.device("cpu")}
    apart, together = (estimate_cost(SIZE, steps, **options) for steps in ([GROUPS[:1], GROUPS[1:]], [GROUPS]))
    assert apart.computed_tokens == together.computed_tokens
    assert apart.memory_bytes < together.memory_bytes


def test_memory_falls_with_frozen_weights_checkpointing_and_smaller_micro_batches():
    half = ModelSize(parameters=1000, trainable=500, hidden=8, layers=2, vocabulary=50)
    assert cost().memory_bytes - cost(half).memory_bytes == 8 * 500
    deep = {"size": ModelSize(parameters=1000, trainable=1000, hidden=8, layers=32, vocabulary=50)}
    deep["kept"] = Kept(32 * 16 * 8 * 4.0, 0.0)
    assert cost(**deep, checkpointing=True).memory_bytes < cost(**deep).memory_bytes
    assert cost(max_tokens=1).memory_bytes < cost().memory_bytes


def test_gradients_are_held_beside_activations_only_from_the_second_micro_batch_on():
    frozen = ModelSize(parameters=1000, trainable=0, hidden=8, layers=2, vocabulary=50)
    # The same largest micro-batch in both: the longer group, alone.
    alone, accumulated = (
        [cost(size, groups, max_tokens=1).memory_bytes for size in (SIZE, frozen)] for groups in (GROUPS[:1], GROUPS)
    )
    assert alone[1] == accumulated[1]
    assert accumulated[0] - alone[0] == 4 * 1000
    few = {"kept": Kept(0.0, 0.0), "max_tokens": 1, "groups": [TokenGroup([1], [[2], [2]])]}
    many = ModelSize(parameters=10**6, trainable=10**6, hidden=8, layers=2, vocabulary=50)
    assert cost(many, **few).memory_bytes == 16 * 10**6


@pytest.mark.parametrize(("layer_weights", "most"), [(5 * 10**6, 4), (10**8, 2)])
def test_the_pace_counts_layers_once_and_the_head_apart(monkeypatch, layer_weights, most):
    """With a fake clock that charges 1 s for each layer of a pass and 5 s for the head, thrice that with gradients."""
    now, built = [0.0], []

    def build(layers):
        built.append(layers)
        model = tiny_llama(layers=layers)
        for part, seconds in [*((layer, 1.0) for layer in model.model.layers), (model.model.norm, 5.0)]:
            part.register_forward_hook(lambda *_, seconds=seconds: charge(seconds))
        return model, model

    def charge(seconds):
        now[0] += seconds * (3 if torch.is_grad_enabled() else 1)

    monkeypatch.setattr(pace_module.time, "perf_counter", lambda: now[0])
    pace = measure_pace(build, GROUPS[:1], "shared", torch.device("cpu"), layer_weights=layer_weights, bf16=False)
    assert built == [1, most]
    assert pace.scoring == Speed(pytest.approx(1 / 11), pytest.approx(5 / 9))
    assert pace.training == Speed(pytest.approx(3 / 11), pytest.approx(15 / 9))


def test_a_gpu_holds_more_logits_at_once_but_never_more_than_a_micro_batch_has():
    long = [TokenGroup([1] * 4, [[2] * 600, [2] * 600]) for _ in range(200)]
    wide = ModelSize(parameters=1000, trainable=500, hidden=8, layers=2, vocabulary=1000, head_trains=False)
    options = {"groups": long, "layout": "shared", "kept": Kept(0.0, 0.0), "max_tokens": 10**6}
    cpu, gpu = (cost(wide, **options, device=torch.device(kind)).memory_bytes for kind in ("cpu", "cuda"))
    assert gpu - cpu == 3 * 4 * 15 * 2**23
    one, few = (cost(wide, **options | {"groups": long[:n]}, device=torch.device("cuda")).memory_bytes for n in (1, 2))
    assert few - one == 3 * 4 * 1200 * 1000


def test_padded_rows_have_logits_after_the_shortest_prompt():
    wide = ModelSize(parameters=1000, trainable=0, hidden=8, layers=2, vocabulary=1000, head_trains=False)
    both, alone = (cost(wide, groups, kept=Kept(0.0, 0.0)).memory_bytes for groups in (GROUPS, GROUPS[:1]))
    # Rows of 10 tokens, of which 4 of 2 tokens' prompts have logits from the second on, and 2 from the fourth.
    assert both - alone == 3 * 4 * 1000 * (4 * (10 - 2 + 1) - 2 * (10 - 4 + 1))


@pytest.mark.parametrize("bf16", [False, True])
def test_what_experts_keep_is_counted_without_their_weights(bf16):
    """Torch knows the shape of a product by experts for bfloat16 alone."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    kept = []
    for layers in (1, 2, 3):
        config = AutoConfig.for_model("mixtral", vocab_size=64, num_hidden_layers=layers, num_local_experts=4, **sizes)
        with FakeTensorMode():
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            kept.append(kept_for_backward(model, bf16=bf16, device=torch.device("cpu")).per_token)
    assert kept[2] - kept[1] == pytest.approx(kept[1] - kept[0])
    # Two experts for a token, of each at least what enters its product with the second matrix.
    assert kept[1] - kept[0] > 2 * 64 * 4
    assert moe._can_use_grouped_mm.__name__ == "_can_use_grouped_mm"
