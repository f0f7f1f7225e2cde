"""Attention by blocks as compiled code, traced as on a GPU but without its kernels; and when it is preferred."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import flex_attention as flex
from transformers import AutoConfig, AutoModelForCausalLM

from bfpo.engine import blocks, layout_choice
from bfpo.engine.cost import kept_for_backward
from bfpo.engine.forward import Engine
from bfpo.engine.layout import build_stream
from bfpo.engine.layout_choice import choose_layout
from bfpo.engine.padded import padded_logps
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


def kept(attend, dtype):
    """Sizes and types of the numbers that attention keeps for the backward pass, under autocast to bf16."""
    stream, found = build_stream(BATCH, "shared"), []
    draw = torch.Generator().manual_seed(0)
    tokens = stream.input_ids.shape[1]
    query, key, value = (
        torch.randn(1, heads, tokens, 16, generator=draw).to(kind).requires_grad_()
        for heads, kind in ((4, dtype), (2, dtype), (2, torch.bfloat16))
    )

    def keep(tensor):
        if tensor.is_floating_point():
            found.append((tuple(tensor.shape), tensor.dtype))
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        output, _ = attend(None, query, key, value, None, stream=stream, scaling=0.25)
    assert (output.shape, output.dtype) == ((1, tokens, 4, 16), torch.bfloat16)
    return sorted(found, key=str)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_counted_for_a_gpu_is_what_blocks_keep(traced, dtype):
    """A rotation leaves queries and keys in float32 under autocast, and the kernel takes them in bf16."""
    counted = kept(blocks.keep_as_by_blocks, dtype)
    assert counted == kept(blocks.attend_by_blocks, dtype)
    assert [kind for _, kind in counted].count(torch.bfloat16) == 4


def test_on_a_gpu_attention_keeps_no_copies_in_float32():
    layers, width = 2, 64
    with FakeTensorMode():
        config = AutoConfig.for_model(
            "llama", vocab_size=64, hidden_size=width, intermediate_size=128, num_hidden_layers=layers,
            num_attention_heads=4,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        on_cpu, on_gpu = (
            kept_for_backward(model.train(), bf16=True, device=torch.device(name)) for name in ("cpu", "cuda")
        )
    # Queries, keys, values and outputs, in 4 bytes instead of 2.
    assert on_cpu.per_token - on_gpu.per_token > 0.9 * layers * 4 * width * 2
    assert on_cpu.fixed == on_gpu.fixed


@torch.no_grad()
def test_attention_by_blocks_takes_queries_that_autocast_left_in_float32():
    model = tiny_model("llama", torch.float32)
    found = {}
    for attention in ("pieces", "blocks"):
        engine = Engine(model, "shared", 10_000, attention)
        with engine.attached(), torch.autocast("cpu", torch.bfloat16):
            found[attention] = engine.logps(model, BATCH).policy
    exact = padded_logps(model, BATCH).policy
    apart = {attention: (policy - exact).norm() / exact.norm() for attention, policy in found.items()}
    assert 0 < apart["blocks"] < max(2 * apart["pieces"], 0.02)


def test_attention_is_timed_in_the_context_of_training_on_what_fits_into_memory(monkeypatch):
    """The blocks stand in as pieces, since FlexAttention has no backward on CPU."""
    model = tiny_model("llama", torch.float32)
    tried, contexts, plain = [], [], layout_choice._seconds

    @contextmanager
    def autocast():
        contexts.append(len(tried))
        yield

    def seconds(engine, *args):
        tried.append((engine.attention, engine.max_tokens))
        if engine.max_tokens > 30:
            raise torch.OutOfMemoryError("no memory")
        assert plain(replace(engine, attention="pieces"), *args) > 0
        return 1.0 if engine.attention == "blocks" else 2.0

    monkeypatch.setattr(layout_choice, "_attentions", lambda _: ("pieces", "blocks"))
    monkeypatch.setattr(layout_choice, "_seconds", seconds)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    choice = choose_layout(model, model, BATCH, max_tokens=100, autocast=autocast)
    assert tried == [("pieces", 100), ("pieces", 50), ("pieces", 25), ("blocks", 25)]
    assert contexts == [3, 3, 3, 4, 4, 4]
    assert choice.attention == "blocks"
    assert all(parameter.grad is None for parameter in model.parameters())
    monkeypatch.setattr(layout_choice, "_seconds", lambda *_: pytest.fail("timed"))
    assert choose_layout(model, model, BATCH, only="pieces").attention == "pieces"
