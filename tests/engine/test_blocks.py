"""Attention by blocks as compiled code, traced as on a GPU but without its kernels: gradients and recompilations."""

import pytest
import torch
from torch._dynamo.utils import counters
from torch.nn.attention import flex_attention as flex

from bfpo.engine import blocks
from bfpo.engine.forward import Engine
from bfpo.groups import TokenGroup
from engine.losses import BATCH, gradients, loss_by, padded_loss
from models import tiny_model


@pytest.fixture
def traced(monkeypatch):
    """FlexAttention refuses a backward pass on CPU only because it has no kernel for it there."""
    monkeypatch.setattr(flex, "_validate_device", lambda *_: None)
    torch._dynamo.reset()
    for name in ("flex_attention", "create_block_mask"):
        monkeypatch.setattr(blocks, name, torch.compile(getattr(flex, name), dynamic=True, backend="aot_eager"))
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield
    torch._dynamo.reset()


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
def test_gradients_of_compiled_blocks_are_the_padded_ones_without_recompiling_for_every_stream(traced, family):
    """Mistral has sliding windows; Gemma 2 has them in every other layer, and caps scores."""
    heads = {"head_dim": 16, "num_hidden_layers": 2}
    model = tiny_model(family, torch.float32, attn_implementation="eager", **heads)
    engine, graphs = Engine(model, "shared", 10_000, "blocks"), []
    longer = [TokenGroup([5] * size, [[6] * size, [7] * (size + 9)]) for size in (20, 35, 70)]
    for batch in (BATCH, longer, BATCH + longer, longer[:2], BATCH[:3] + longer):
        expected = gradients(model, padded_loss(model, batch))
        _, _, found = loss_by(engine, model, batch, "fused")
        for mine, plain in zip(found, expected, strict=True):
            assert (mine - plain).norm() <= 1e-4 * plain.norm() + 1e-6
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs[2:] == [graphs[2]] * 3
