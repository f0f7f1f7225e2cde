"""Floating point operations of training, against PyTorch's own count of the products that it runs."""

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from bfpo.engine.layout import build_stream, stream_tokens
from bfpo.engine.trainable import select_trainable
from bfpo.engine.work import Work, training_flops, work_of
from bfpo.groups import TokenGroup
from models import tiny_llama

GROUP = TokenGroup([1] * 4, [[2] * 3, [2] * 6])


def test_work_of_a_group_by_hand():
    # Fed: 4 of the prompt, 2 and 5 of the answers; a token sees itself and all before it in its own text.
    assert work_of(GROUP, "shared") == Work(
        tokens=4 + 2 + 5, seen=(1 + 2 + 3 + 4) + (5 + 6) + (5 + 6 + 7 + 8 + 9), scored=9
    )
    assert work_of(GROUP, "packed") == Work(tokens=4 + 2 + 4 + 5, seen=sum(range(1, 7)) + sum(range(1, 10)), scored=9)


def test_tokens_that_are_not_scored_do_not_go_through_the_head():
    """A user's turn within an answer; the head is asked for as many positions as the engine's stream has."""
    group = TokenGroup(GROUP.prompt, GROUP.answers, [[], [1, 2]])
    assert work_of(group, "shared").scored == len(build_stream([group], "shared").targets) == 7
    assert work_of(group, "shared").tokens == work_of(GROUP, "shared").tokens


@pytest.mark.parametrize("layout", ["shared", "packed"])
def test_tokens_are_those_of_the_engines_stream(layout):
    assert work_of(GROUP, layout).tokens == stream_tokens(GROUP, layout)


def counted(model, tokens):
    """Operations of products of matrices, forward and backward; attention is counted apart."""
    ids = torch.randint(0, 50, (1, tokens), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model(ids).logits.sum().backward()
    counts = counter.get_flop_counts()["Global"]
    return sum(count for operation, count in counts.items() if str(operation) in {"aten.mm", "aten.addmm"})


@pytest.mark.parametrize(
    ("trained", "unneeded"),
    [
        ("all", r"(?!)"),
        ("down_proj", r"layers\.0\..*_proj\."),
        ("lora", r"layers\.0\.self_attn\.[qkv]_proj\.(base_layer|lora_A)"),
    ],
)
def test_weights_cost_what_pytorch_counts(trained, unneeded):
    """But for the gradients of inputs up to the first trained weight, which the formula leaves in."""
    model = tiny_llama()
    if trained == "lora":
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    else:
        select_trainable(model, trained)
    left_in = sum(p.numel() for name, p in model.named_parameters() if re.search(unneeded, name))
    found = training_flops(model, Work(tokens=11, seen=0, scored=11))
    assert found - 2 * 11 * left_in == counted(model, 11)


def test_attention_costs_two_products_forward_and_four_backward():
    model, config = tiny_llama(), tiny_llama().config
    width = config.num_attention_heads * config.head_dim
    assert training_flops(model, Work(0, 7, 0)) == 7 * config.num_hidden_layers * width * 2 * (2 + 4)


def test_a_model_whose_cost_is_not_known_has_none():
    model = tiny_llama()
    model.experts = torch.nn.Parameter(torch.zeros(2, 3, 4))
    assert training_flops(model, Work(1, 1, 1)) is None
    saved = LoraConfig(r=2, target_modules="all-linear", modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    assert training_flops(get_peft_model(tiny_llama(), saved), Work(1, 1, 1)) is None
