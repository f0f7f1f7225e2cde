"""Every layout and head against the plain padded forward: values and gradients, by family, over all shapes."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from bfpo.engine import attention as attention_module
from bfpo.engine import blocks, forward, layout_choice
from bfpo.engine import head as head_module
from bfpo.engine import layout as layout_module
from bfpo.engine.forward import Engine
from bfpo.engine.head import group_losses
from bfpo.engine.layout import Piece, build_stream, stream_tokens
from bfpo.engine.layout_choice import choose_layout
from bfpo.engine.micro_batches import split
from bfpo.engine.padded import padded_logps
from bfpo.errors import BfpoError
from bfpo.groups import TokenGroup
from engine.losses import BATCH, gradients, loss_by, loss_inputs, padded_loss
from engine.visibility import expected_pairs, seen_pairs
from models import FAMILIES, chunked_llama4, tiny_model, without_float32_parts

sizes = st.one_of(st.integers(1, 12), st.integers(60, 90))
# A size and a seed: drawing every token takes longer than the computations.
token_lists = st.builds(lambda size, seed: random.Random(seed).choices(range(3, 64), k=size), sizes, st.integers(0, 99))
batches = st.lists(
    st.builds(TokenGroup, prompt=token_lists, answers=st.lists(token_lists, min_size=1, max_size=4)),
    min_size=1,
    max_size=5,
)
# Mixtral's router and Cohere's rotation are computed in float32 whatever the model is in, and float32 routing is
# off by 1.2e-3 in the padded forward too, GPT-OSS by up to 6e-3.
TOLERANCE = {
    ("mixtral", torch.float64): 1e-7,
    ("mixtral", torch.float32): 2e-3,
    ("gpt_oss", torch.float64): 1e-7,
    ("gpt_oss", torch.float32): 1e-2,
    ("cohere", torch.float64): 1e-7,
}
STREAMS = ("shared", "packed")


def assert_gradients_close(found, expected, relative):
    for mine, plain in zip(found, expected, strict=True):
        assert (mine - plain).norm() <= relative * plain.norm() + 1e-300


@pytest.mark.parametrize("head", ["fused", "recomputed"])
@pytest.mark.parametrize("layout", STREAMS)
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "mamba"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_equal_the_padded_float64_computation(monkeypatch, family, layout, head, dtype):
    relative = TOLERANCE.get((family, dtype), 1e-9 if dtype == torch.float64 else 1e-5)
    exact, model = tiny_model(family), tiny_model(family, dtype=dtype)
    # The same numbers in both: float32 weights are exact in float64.
    exact.load_state_dict(model.state_dict())
    monkeypatch.setattr(head_module, "LOGITS_AT_ONCE", 64 * 40)
    without_float32_parts(exact, monkeypatch)
    if dtype == torch.float64:
        without_float32_parts(model, monkeypatch)
    expected_logps = padded_logps(exact, BATCH).policy
    expected = gradients(exact, padded_loss(exact))
    _, policy, found = loss_by(Engine(model, layout, 10_000), model, BATCH, head)
    assert (policy - expected_logps).abs().max() <= relative * expected_logps.abs().max()
    assert_gradients_close([part.double() for part in found], expected, relative)


MODEL = tiny_model("gpt2")


@pytest.mark.parametrize("layout", STREAMS)
@given(batch=batches, chunk=st.integers(5, 200))
@settings(max_examples=30)
def test_any_groups_give_the_padded_values_and_gradients(layout, batch, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_module, "LOGITS_AT_ONCE", 64 * chunk)
        engine = Engine(MODEL, layout, 10_000)
        expected = padded_logps(MODEL, batch)
        plain = gradients(MODEL, padded_loss(MODEL, batch))
        for head in ("fused", "recomputed"):
            _, policy, found = loss_by(engine, MODEL, batch, head)
            torch.testing.assert_close(policy, expected.policy.detach(), rtol=1e-10, atol=1e-10)
            assert_gradients_close(found, plain, 1e-9)


@pytest.mark.parametrize("layout", STREAMS)
@given(batch=batches, window=st.none() | st.integers(1, 100), masked=st.integers(0, 40_000))
@settings(max_examples=60)
def test_every_token_sees_its_own_sequence_so_far_and_nothing_else(layout, batch, window, masked):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "_MASKED", masked)
        stream = build_stream(batch, layout)
    assert seen_pairs(stream, window).equal(expected_pairs(list(sequences(batch, layout)), window))


def sequences(batch, layout):
    """The places in the stream of every answer's prompt and of all but its last token."""
    at = 0
    for group in batch:
        prompt = None
        for answer in group.answers:
            if prompt is None or layout == "packed":
                prompt = list(range(at, at + len(group.prompt)))
                at += len(prompt)
            yield prompt + list(range(at, at + len(answer) - 1))
            at += len(answer) - 1


@given(batches)
def test_a_stream_holds_a_prompt_once_and_predicts_every_answer_token(batch):
    stream = build_stream(batch, "shared")
    assert stream.input_ids.shape[1] == sum(stream_tokens(group, "shared") for group in batch)
    targets = [token for group in batch for answer in group.answers for token in answer]
    assert stream.targets.tolist() == targets
    assert stream.tokens.tolist() == [len(answer) for group in batch for answer in group.answers]
    before = [token for group in batch for answer in group.answers for token in [group.prompt[-1], *answer[:-1]]]
    assert stream.input_ids[0, stream.scored].tolist() == before
    places = [len(group.prompt) - 1 + at for group in batch for answer in group.answers for at in range(len(answer))]
    assert stream.position_ids[0, stream.scored].tolist() == places


@given(batches, st.sampled_from(STREAMS), st.integers(1, 300))
def test_split_covers_every_group_once_within_the_budget(batch, layout, budget):
    parts = split(batch, layout, budget)
    assert sorted(index for part in parts for index in part) == list(range(len(batch)))
    for part in parts:
        assert len(part) == 1 or sum(stream_tokens(batch[index], layout) for index in part) <= budget
    longest = max(range(len(batch)), key=lambda index: stream_tokens(batch[index], layout))
    assert longest in parts[0]


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fastest_exact_layout_is_chosen(family, dtype):
    choice = choose_layout(*[tiny_model(family, dtype)] * 2, BATCH)
    assert choice.layout == ("padded" if family == "mamba" else "shared")
    assert choice.reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fault", ["positions", "mask"])
def test_a_forward_with_wrong_positions_or_masks_is_noticed_in_any_dtype(monkeypatch, dtype, fault):
    """Also in bfloat16, where what is tolerated is above the rounding of real models."""
    model = tiny_model("llama", dtype)
    right = forward.build_stream

    def wrong(*given):
        stream = right(*given)
        tokens = stream.input_ids.numel()
        if fault == "positions":
            return replace(stream, position_ids=torch.arange(tokens)[None])
        return replace(stream, pieces=(Piece(0, tokens, tuple(range(len(stream.atoms))), causal=True),))

    monkeypatch.setattr(forward, "build_stream", wrong)
    choice = choose_layout(model, model, BATCH)
    # Without shared prompts, positions that go on from group to group are the same to a rotation.
    assert choice.layout == ("packed" if fault == "positions" else "padded")
    assert choice.reason.startswith("shared differs from the padded forward by")


def test_rounding_of_short_answers_is_no_difference(monkeypatch):
    """SmolLM2 in bfloat16: at 23 tokens, the mean of an answer was .034 apart, and .08 a token."""
    model = tiny_model("llama", torch.bfloat16)
    right = Engine.logps
    noise = torch.Generator().manual_seed(0)

    def rounded(self, *given):
        found = right(self, *given)
        apart = 0.07 * found.tokens.sqrt() * torch.randn(len(found.tokens), generator=noise)
        return replace(found, policy=found.policy + apart)

    monkeypatch.setattr(Engine, "logps", rounded)
    assert choose_layout(model, model, BATCH).layout == "shared"


def test_experts_that_are_balanced_and_dropout_are_not_shared():
    balanced = tiny_model("mixtral", output_router_logits=True)
    assert choose_layout(balanced, balanced, BATCH).layout == "padded"
    dropped = tiny_model("llama", attention_dropout=0.1)
    choice = choose_layout(dropped, dropped, BATCH)
    assert choice.layout == "packed"
    assert "dropout" in choice.reason


def model_of(family, dtype=torch.float32, **sizes):
    """A random model of a family that has other names for its sizes."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=64, bos_token_id=1, eos_token_id=2, pad_token_id=0, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype).eval()


@pytest.mark.parametrize("layout", ["auto", "padded"])
def test_an_encoder_is_refused(layout):
    """Without is_decoder, transformers makes BERT a language model that sees the tokens it predicts."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    with pytest.raises(BfpoError, match=r"BertLMHeadModel: .* depend on what follows them, by .* causal"):
        choose_layout(*[model_of("bert", **sizes)] * 2, BATCH, layout)
    causal = model_of("bert", **sizes, is_decoder=True)
    assert choose_layout(causal, causal, BATCH, layout).layout


def test_rounding_hides_no_mask_of_a_models_own():
    """GPT's is off by .1 nats, which bfloat16's rounding may be, too."""
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4}
    for dtype, reason in ((torch.float32, "differs from"), (torch.bfloat16, "is not checked in half precision")):
        model = model_of("openai-gpt", dtype, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **sizes)
        choice = choose_layout(model, model, BATCH)
        assert choice.layout != "shared"
        assert choice.reason.startswith(f"shared {reason}")


def test_a_pinned_layout_is_taken_or_refused():
    llama, mamba = tiny_model("llama"), tiny_model("mamba")
    for layout in ("padded", "packed", "shared"):
        assert choose_layout(llama, llama, BATCH, layout).layout == layout
    with pytest.raises(BfpoError, match=r"'shared' is not possible .* nats per token\): use layout 'auto'"):
        choose_layout(mamba, mamba, BATCH, "shared")
    with pytest.raises(BfpoError, match="layout must be one of"):
        choose_layout(llama, llama, BATCH, "shred")


@pytest.mark.parametrize(
    ("family", "layout"),
    [*((family, "shared") for family in ("llama", "qwen3", "mistral", "gemma2", "granite")), ("mistral", "packed")],
)
def test_attention_by_blocks_computes_the_same(family, layout):
    """The forward only: FlexAttention has no backward on CPU."""
    model = tiny_model(family, torch.float32, **({"head_dim": 16} if family in ("qwen3", "gemma2") else {}))
    with torch.no_grad():
        expected = padded_logps(model, BATCH).policy
        engine = Engine(model, layout, 10_000, "blocks")
        with engine.attached():
            found = engine.logps(model, BATCH).policy
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_of_two_exact_ways_to_attend_the_faster_is_taken(monkeypatch):
    model = tiny_model("llama", torch.float32)
    monkeypatch.setattr(layout_choice, "_attentions", lambda _: ("pieces", "blocks"))
    for times in ({"pieces": 2.0, "blocks": 1.0}, {"pieces": 1.0, "blocks": 2.0}):
        monkeypatch.setattr(layout_choice, "_seconds", lambda engine, *_, times=times: times[engine.attention])
        choice = choose_layout(model, model, BATCH)
        assert times[choice.attention] == 1.0
        assert f"attention by {choice.attention} was faster" in choice.reason


def test_the_longest_row_shows_a_mask_that_only_long_rows_have():
    """Llama 4 attends within chunks, which the first, short rows don't fill."""
    model = chunked_llama4(vocab_size=64)
    generator = torch.Generator().manual_seed(0)
    long = TokenGroup(torch.randint(3, 64, (40,), generator=generator).tolist(), [[5] * 30, [6] * 20])
    short = [TokenGroup(long.prompt[:6], [[5] * 4, [6] * 3]), TokenGroup(long.prompt[6:9], [[7] * 2])]
    assert choose_layout(model, model, short).layout == "shared"
    choice = choose_layout(model, model, short, longest=long)
    assert choice.layout == "padded"
    assert "differs from the padded forward" in choice.reason


def test_want_of_memory_is_no_reason_for_another_layout(monkeypatch):
    model = tiny_model("llama", torch.float32)

    def full(*_):
        raise torch.OutOfMemoryError

    for place, name in ((layout_choice, "padded_logps"), (Engine, "logps")):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, full)
            with pytest.raises(torch.OutOfMemoryError):
                choose_layout(model, model, BATCH)


def test_a_way_to_attend_that_fails_leaves_the_other(monkeypatch):
    model = tiny_model("llama", torch.float32)
    monkeypatch.setattr(layout_choice, "_attentions", lambda _: ("pieces", "blocks"))

    def fails(*_, **__):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(blocks, "flex_attention", fails)
    choice = choose_layout(model, model, BATCH)
    assert (choice.layout, choice.attention) == ("shared", "pieces")
    assert "shared by blocks fails with RuntimeError: no compiler" in choice.reason


@pytest.mark.parametrize("causal", [True, False])
def test_attention_of_bfloat16_is_computed_in_float32_on_cpu(causal):
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 40, 16).bfloat16().requires_grad_() for heads in (4, 2, 2))
    mask = None if causal else torch.rand(40, 40) < 0.5
    with torch.autocast("cpu", torch.bfloat16):
        found = attention_module._plain(query, key, value, mask, 0.3, 0.0)
    visible = torch.ones(40, 40).tril().bool() if mask is None else mask
    wide = [part.detach().double().repeat_interleave(4 // part.shape[1], 1) for part in (query, key, value)]
    scores = (wide[0] @ wide[1].transpose(2, 3) * 0.3).masked_fill(~visible, -torch.inf)
    expected = scores.softmax(-1).nan_to_num() @ wide[2]
    assert found.dtype == torch.bfloat16
    # Rounded once, at the end: half a unit in the last of eight bits.
    assert ((found.double() - expected).abs() <= 2**-8 * expected.abs() + 1e-6).all()
    found.float().sum().backward()
    assert query.grad.dtype == torch.bfloat16


def test_the_model_is_left_as_it_was():
    model = tiny_model("llama")
    before = model.config._attn_implementation
    text = torch.tensor([[5, 6, 7, 8]])
    logits = model(text).logits
    loss_by(Engine(model, "shared", 100), model, BATCH, "fused")
    assert model.config._attn_implementation == before
    assert not model.get_output_embeddings()._forward_pre_hooks
    assert model(text).logits.equal(logits)


@pytest.mark.parametrize("trained", ["all", "down_proj", "embed_tokens", "lm_head"])
@pytest.mark.parametrize("tied", [True, False])
def test_frozen_weights_and_tied_embeddings(monkeypatch, trained, tied):
    model = without_float32_parts(tiny_model("llama", tie_word_embeddings=tied), monkeypatch)
    if tied and trained == "lm_head":
        pytest.skip("there is no such weight")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained == "all" or trained in name)
    plain = gradients(model, padded_loss(model))
    for head in ("fused", "recomputed"):
        _, _, found = loss_by(Engine(model, "shared", 10_000), model, BATCH, head)
        assert_gradients_close(found, plain, 1e-9)


@pytest.mark.parametrize("target", ["all-linear", ["lm_head", "q_proj"]])
def test_adapters_on_layers_and_on_the_head(monkeypatch, target):
    base = without_float32_parts(tiny_model("llama", tie_word_embeddings=False), monkeypatch)
    model = get_peft_model(base, LoraConfig(target_modules=target, r=2, init_lora_weights=False)).double()
    plain = gradients(model, padded_loss(model))
    engine = Engine(model.get_base_model(), "shared", 10_000)
    _, _, found = loss_by(engine, model, BATCH, "fused")
    assert_gradients_close(found, plain, 1e-9)


def test_recomputed_layers_attend_by_group_too(monkeypatch):
    model = without_float32_parts(tiny_model("llama"), monkeypatch).train()
    plain = gradients(model, padded_loss(model))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    _, _, found = loss_by(Engine(model, "shared", 10_000), model, BATCH, "fused")
    assert_gradients_close(found, plain, 1e-9)


def test_autocast_keeps_float32_sums_and_gradients():
    model = tiny_model("llama", torch.float32)
    plain = gradients(model, padded_loss(model))
    for head in ("fused", "recomputed"):
        with torch.autocast("cpu", torch.bfloat16):
            _, policy, found = loss_by(Engine(model, "shared", 10_000), model, BATCH, head)
        assert policy.dtype == torch.float32
        assert all(gradient.dtype == torch.float32 for gradient in found)
        assert_gradients_close(found, plain, 0.1)


def test_float16_gradients_survive_until_they_are_scaled():
    """The scaler multiplies the loss by 65,536, because small gradients have no float16; nor has that number."""
    model = tiny_model("llama", torch.float32)
    inputs = replace(loss_inputs(BATCH), scale=1e-6)
    plain = gradients(model, group_losses(padded_logps(model, BATCH), inputs).sum() * 65_536.0)
    engine = Engine(model, "shared", 10_000)
    with engine.attached(), torch.autocast("cpu", torch.float16):
        loss, _ = engine.loss(model, BATCH, inputs)
        found = gradients(model, loss * 65_536.0)
    assert_gradients_close(found, plain, 0.05)
