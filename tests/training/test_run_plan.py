"""Plans of architectures other than Llama's: they are measured, in the layout that training is going to choose."""

from functools import partial

import pytest
import torch
from transformers import AutoConfig

from bfpo.engine import pace
from bfpo.engine.pace import measure_pace
from bfpo.errors import BfpoError
from bfpo.training import run_plan
from bfpo.training.recipe import Recipe
from engine.losses import BATCH

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
RECIPE = {"stage": "preference", "model": "m", "data": [{"path": "rows.jsonl"}], "output_dir": "o", "precision": "fp32"}


@pytest.mark.parametrize(
    ("family", "sizes", "layout"),
    [
        ("smollm3", SIZES | {"no_rope_layers": [1, 0]}, "shared"),
        ("mixtral", SIZES | {"num_local_experts": 4}, "shared"),
        ("gpt_oss", SIZES | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}, "shared"),
        # The layers pass nothing on to attention.
        ("stablelm", SIZES, "padded"),
        # Attention by code of its own, layers without attention, and no attention at all.
        ("bloom", {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "padded"),
        ("lfm2", SIZES | {"layer_types": ["conv", "full_attention"]}, "padded"),
        ("mamba", {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}, "padded"),
    ],
)
def test_a_model_is_measured_in_the_layout_that_it_will_have(monkeypatch, family, sizes, layout):
    monkeypatch.setattr(pace, "_OPERATIONS", {"cpu": 1.0})
    config, recipe, device = AutoConfig.for_model(family, **sizes), Recipe(**RECIPE), torch.device("cpu")
    size, kept, found = run_plan._measure_model(recipe, config, device)
    assert (size.layers, found) == (2, layout)
    assert kept.per_token > 0
    build = partial(run_plan._random_model_of, recipe, config)
    assert build(4)[0].config.num_hidden_layers == 4
    assert measure_pace(build, BATCH[:1], found, device, layer_weights=1000, bf16=False).training.head >= 0
    pinned = Recipe(**RECIPE, layout="padded")
    assert run_plan._measure_model(pinned, config, device)[2] == "padded"


def test_a_configuration_that_fits_one_depth_alone_is_named(monkeypatch):
    def fails(*_):
        raise ValueError("15 layers\nshare keys")

    monkeypatch.setattr(run_plan, "_random_model", fails)
    with pytest.raises(BfpoError, match=r"^m: its pace can't be measured on fewer layers \(15 layers share keys\); "):
        run_plan._random_model_of(Recipe(**RECIPE), AutoConfig.for_model("llama", **SIZES), 1)
