"""Attention over a stream of groups, entered into transformers by its own registry of attention functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from bfpo.engine.layout import Stream

_NAME = "bfpo_groups"


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    stream: Stream,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of [1, heads, T, width] queries, piece by piece; returns [1, T, heads, width]."""
    keys, values = key.split(stream.atoms, 2), value.split(stream.atoms, 2)
    outputs = []
    parts = query.split([piece.queries for piece in stream.pieces], 2)
    for piece, part, mask in zip(stream.pieces, parts, stream.masks(sliding_window), strict=True):
        seen = _join([keys[atom] for atom in piece.atoms])
        heard = _join([values[atom] for atom in piece.atoms])
        if softcap is None:
            output = scaled_dot_product_attention(
                part, seen, heard, mask, dropout, is_causal=mask is None, scale=scaling, enable_gqa=True
            )
        else:
            output = _capped(part, seen, heard, mask, scaling, softcap, dropout)
        outputs.append(output)
    return _join(outputs).transpose(1, 2).contiguous(), None


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def _capped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float,
    chance: float,
) -> Tensor:
    """Attention whose scores are bent to ``softcap * tanh(score / softcap)`` before the mask (Gemma 2)."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(repeats, 1) for part in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
    return functional.dropout(weights, chance) @ value


AttentionInterface.register(_NAME, _attend)
# The pieces know who sees whom; a mask of all the stream would be T x T.
AttentionMaskInterface.register(_NAME, lambda *_, **__: None)  # pyright: ignore


@contextmanager
def attends_by_group(model: PreTrainedModel) -> Iterator[None]:
    """Let the model attend by a stream's pieces, in its forward and in what its backward recomputes."""
    before = model.config._attn_implementation or "eager"
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
