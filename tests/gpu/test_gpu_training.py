"""Training on a GPU: against the CPU, twice, deterministically, resumed, and on weights in 4 bits."""

import copy
import json
import os
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from bfpo.engine import layout_choice
from bfpo.engine.forward import Engine
from bfpo.engine.trainable import prepare_model
from bfpo.models import quantize_to_4bit
from engine.losses import loss_by
from gpu_models import CUDA, DEVICE, groups, largest_error, relative, small_model
from training.gpu_run import trained

pytestmark = CUDA


@pytest.fixture(params=["pieces", "blocks"])
def attention(request, monkeypatch):
    """Only one attention to choose, since the faster of two may be another one in the next run."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch._dynamo.reset()
    monkeypatch.setattr(layout_choice, "_attentions", lambda _: (request.param,))
    return request.param


@contextmanager
def deterministic():
    """Deterministic operations where torch has them; yields the warnings about those that it has not."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        torch.use_deterministic_algorithms(False)


def largest_change(one, other):
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


def test_three_steps_equal_those_on_the_cpu(attention, tmp_path, record_property):
    losses, weights = trained(tmp_path / "gpu", attention)
    script, result = Path(__file__).parents[1] / "training" / "gpu_run.py", tmp_path / "cpu.json"
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": paths}
    subprocess.run([sys.executable, str(script), str(tmp_path / "cpu"), str(result)], env=environment, check=True)
    expected = json.loads(result.read_text())
    record_property("losses", f"{losses} on the GPU, {expected} on the CPU")
    assert losses == pytest.approx(expected, rel=1e-4)
    assert losses[-1] != losses[0]
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_run_twice(attention, tmp_path, record_property):
    """By default torch adds some sums in any order; with deterministic operations, all bits are the same."""
    runs = [trained(tmp_path / name, attention) for name in ("one", "two")]
    apart = largest_change(runs[0][1], runs[1][1])
    record_property("default", "equal bits" if apart == 0 else f"weights differ by at most {apart:.1e}")
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-4)
    with deterministic() as caught:
        strict = [trained(tmp_path / name, attention) for name in ("three", "four")]
    told = {str(one.message).split(".")[0][:150] for one in caught if "determinis" in str(one.message)}
    record_property("operations without a deterministic form", "; ".join(sorted(told)) or "none")
    apart = largest_change(strict[0][1], strict[1][1])
    record_property("deterministic", "equal bits" if apart == 0 else f"weights differ by at most {apart:.1e}")
    assert strict[0][0] == strict[1][0]
    assert apart == 0


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(attention, tmp_path, record_property):
    """With deterministic operations; its steps have what a run twice has without them."""
    with deterministic():
        losses, weights = trained(tmp_path / "whole", attention, steps=4, save_steps=2)
        (tmp_path / "whole" / "checkpoint-4").rename(tmp_path / "checkpoint-4")
        again, resumed = trained(tmp_path / "whole", attention, steps=4, save_steps=2, resume=True)
    apart = largest_change(weights, resumed)
    record_property("resumed", "equal bits" if apart == 0 else f"weights differ by at most {apart:.1e}")
    assert again == losses
    assert apart == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_qlora_equals_peft_on_dequantized_weights(dtype, record_property):
    functional = pytest.importorskip("bitsandbytes.functional")
    torch.backends.cuda.matmul.allow_tf32 = False
    base = small_model("llama", dtype, tie_word_embeddings=False)
    packed, plain = copy.deepcopy(base), base
    quantize_to_4bit(packed, dtype)
    modules = dict(packed.named_modules())
    for name, module in plain.named_modules():
        quantized = modules[name]
        if hasattr(getattr(quantized, "weight", None), "quant_state") and isinstance(module, torch.nn.Linear):
            weight = quantized.weight
            module.weight.data = functional.dequantize_4bit(weight.data, weight.quant_state).to(dtype)
    config = LoraConfig(target_modules="all-linear", r=4, init_lora_weights=False)
    torch.manual_seed(1)
    expected_model = get_peft_model(plain, config).to(DEVICE)
    torch.manual_seed(1)
    model = prepare_model(packed, "all", config, disable_dropout=True, mixed=True)
    with torch.no_grad():
        values = dict(expected_model.named_parameters())
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(values[name])
    batch, found = groups(4), {}
    for name, one in (("4 bits", model), ("dequantized", expected_model)):
        engine = Engine(one.get_base_model(), "shared", 10**6, "pieces")
        with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found[name] = loss_by(engine, one, batch, "fused")
    values = relative(found["4 bits"][1], found["dequantized"][1])
    slopes = largest_error(found["4 bits"][2], found["dequantized"][2])
    record_property("values, gradients", f"{values:.1e}, {slopes:.1e}")
    assert len(found["4 bits"][2]) == len(found["dequantized"][2]) == 28
    assert values < (1e-5 if dtype == torch.float32 else 1e-2)
    assert slopes < (1e-4 if dtype == torch.float32 else 5e-2)
