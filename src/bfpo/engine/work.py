"""Tokens and floating point operations of training steps, without padding and recomputation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from bfpo.engine.layout import Layout
from bfpo.groups import TokenGroup


@dataclass(frozen=True)
class Work:
    """Work of a model on some groups.

    Attributes:
        tokens: tokens through the layers.
        seen: pairs of a token and one that it attends to.
        scored: tokens through the head.
    """

    tokens: int
    seen: int
    scored: int


def work_of(group: TokenGroup, layout: Layout) -> Work:
    """Work for a prompt and its answers, whose last tokens are never fed: the prompt once in the shared layout."""
    prompt, answers = len(group.prompt), [len(answer) - 1 for answer in group.answers]
    copies = 1 if layout == "shared" else len(answers)
    return Work(
        tokens=copies * prompt + sum(answers),
        seen=copies * prompt * (prompt + 1) // 2 + sum(n * prompt + n * (n + 1) // 2 for n in answers),
        scored=sum(len(group.scored(at)) for at in range(len(answers))),
    )


def _shape(parameter: nn.Parameter) -> Any:
    """The shape of a weight, also of one that ZeRO-3 divides, or that is packed in 4 bits."""
    packed: Any = getattr(parameter, "quant_state", None)
    return packed.shape if packed is not None else getattr(parameter, "ds_shape", parameter.shape)


def training_flops(model: PreTrainedModel | PeftModel, work: Work) -> int | None:
    """Floating point operations of forward and backward passes; None for a mixture of experts, or ``modules_to_save``.

    Two for each weight and token forward, two for the gradient of the input, and two for that of the weight where it
    trains; for the head, for each scored token; and 4 times the width of attention for each pair of tokens forward,
    twice that backward. Additions that are not part of a product are left out.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    config, head = base.config.get_text_config(), base.get_output_embeddings().weight
    shapes = {p: _shape(p) for p in model.parameters()}
    embedded = {id(p) for each in model.modules() if isinstance(each, nn.Embedding) for p in each.parameters()}
    inner = [p for p in model.parameters() if id(p) not in embedded and p is not head]
    if any(len(shapes[p]) > 2 for p in inner) or any("modules_to_save" in name for name, _ in model.named_parameters()):
        return None
    weights = sum(shapes[p].numel() for p in inner if len(shapes[p]) == 2)
    trained = sum(shapes[p].numel() for p in inner if len(shapes[p]) == 2 and p.requires_grad)
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return (
        2 * work.tokens * (2 * weights + trained)
        + 2 * work.scored * shapes[head].numel() * (3 if head.requires_grad else 2)
        + 3 * 4 * width * config.num_hidden_layers * work.seen
    )
