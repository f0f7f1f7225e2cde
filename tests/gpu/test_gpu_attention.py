"""Both kinds of attention on a GPU against the plain padded forward, in values and gradients."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._dynamo.utils import counters

from bfpo.engine.forward import Engine
from bfpo.engine.head import group_losses
from bfpo.engine.layout import stream_tokens
from bfpo.engine.layout_choice import choose_layout
from bfpo.engine.padded import padded_logps
from engine.losses import gradients, loss_by, loss_inputs, padded_loss
from gpu_models import CUDA, DEVICE, groups, largest_error, relative, small_model

pytestmark = CUDA
BATCH = groups(6)
ATTENTIONS = ("pieces", "blocks")


@pytest.fixture(autouse=True)
def _exact_products_and_no_silent_fallback():
    """Beyond its limit of recompilations torch would run FlexAttention uncompiled, with all scores in memory."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield


def compared(model, engine, batch=BATCH, head="fused"):
    """Relative distance of log-probabilities and of gradients from the padded forward's."""
    expected_logps = padded_logps(model, batch).policy.detach()
    expected = gradients(model, padded_loss(model, batch))
    _, policy, found = loss_by(engine, model, batch, head)
    return relative(policy, expected_logps), largest_error(found, expected)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(
    ("family", "head"),
    [("llama", "fused"), ("llama", "recomputed"), ("qwen2", "fused"), ("mistral", "fused"), ("gemma2", "fused")],
)
def test_float32_equals_the_padded_forward(family, attention, head, record_property):
    """Mistral has sliding windows, Gemma 2 these and capped scores, and all share keys among heads."""
    model = small_model(family, **({"sliding_window": 40} if family in ("mistral", "gemma2") else {}))
    values, slopes = compared(model, Engine(model, "shared", 10**6, attention), head=head)
    record_property("values", f"{values:.1e}")
    record_property("gradients", f"{slopes:.1e}")
    assert values < 1e-5
    assert slopes < 1e-4


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_bfloat16_is_as_near_to_float32_as_the_padded_forward_in_bfloat16(family, weights, attention, record_property):
    """Autocast over float32 weights, and weights in bfloat16; within three times the padded forward's own rounding."""
    exact = small_model(family)
    model = small_model(family).to(weights)
    expected_logps = padded_logps(exact, BATCH).policy.detach()
    expected = gradients(exact, padded_loss(exact, BATCH))
    with torch.autocast("cuda", torch.bfloat16):
        logps = padded_logps(model, BATCH)
        loss = group_losses(logps, loss_inputs(BATCH)).sum()
    own = relative(logps.policy.detach(), expected_logps), largest_error(gradients(model, loss), expected)
    engine = Engine(model, "shared", 10**6, attention)
    with engine.attached():
        with torch.autocast("cuda", torch.bfloat16):
            loss, logps = engine.loss(model, BATCH, loss_inputs(BATCH))
        found = gradients(model, loss)
    apart = relative(logps.policy, expected_logps), largest_error(found, expected)
    record_property("padded", f"{own[0]:.1e}, {own[1]:.1e}")
    record_property("ours", f"{apart[0]:.1e}, {apart[1]:.1e}")
    assert apart[0] < max(3 * own[0], 1e-3)
    assert apart[1] < max(3 * own[1], 1e-2)


def test_streams_of_many_lengths_compile_once(record_property):
    model = small_model("gemma2", sliding_window=40)
    engine = Engine(model, "shared", 10**6, "blocks")
    graphs = []
    sizes = ((2, 60), (7, 300), (1, 30), (12, 200), (3, 900), (20, 150), (5, 90), (9, 500))
    for seed, (count, most) in enumerate(sizes):
        loss, _, found = loss_by(engine, model, groups(count, seed, most), "fused")
        assert torch.isfinite(loss)
        assert all(torch.isfinite(part).all() for part in found)
        graphs.append(counters["stats"]["unique_graphs"])
    record_property("graphs", str(graphs))
    # Sizes that are alike by chance may cost one more at first.
    assert graphs[2:] == [graphs[2]] * len(graphs[2:])


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("most", [8, 25, 50])
def test_a_stream_shorter_than_a_block_of_the_mask(most, attention, record_property):
    """As the last micro-batch of a step can be; FlexAttention would take its kernel for decoding."""
    model = small_model("llama")
    engine = Engine(model, "shared", 10**6, attention)
    batch = groups(1, seed=most, most=most)
    tokens = sum(stream_tokens(group, "shared") for group in batch)
    values, slopes = compared(model, engine, batch)
    record_property(f"{tokens} tokens", f"{values:.1e}, {slopes:.1e}")
    assert tokens < 128
    assert values < 1e-5
    assert slopes < 1e-4


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_adapters_and_recomputed_layers_have_the_same_gradients(attention, record_property):
    base = small_model("llama")
    torch.manual_seed(1)
    model = get_peft_model(base, LoraConfig(target_modules="all-linear", r=4, init_lora_weights=False)).to(DEVICE)
    engine = Engine(base, "shared", 10**6, attention)
    values, slopes = compared(model, engine)
    record_property("adapter", f"{values:.1e}, {slopes:.1e}")
    assert values < 1e-5
    assert slopes < 1e-4
    _, _, kept = loss_by(engine, model.train(), BATCH, "fused")
    base.gradient_checkpointing_enable({"use_reentrant": False})
    _, _, recomputed = loss_by(engine, model, BATCH, "fused")
    apart = largest_error(recomputed, kept)
    record_property("checkpointing", f"{apart:.1e}")
    assert apart < 1e-5


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_both_attentions_are_found_exact_and_timed(weights, record_property):
    model = small_model("llama", weights)
    choice = choose_layout(
        model, model, BATCH, max_tokens=4096, autocast=lambda: torch.autocast("cuda", torch.bfloat16)
    )
    record_property("choice", f"{choice.attention}: {choice.reason}")
    assert choice.layout == "shared"
    assert "was faster" in choice.reason
