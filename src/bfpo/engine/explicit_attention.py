"""Attention with its scores written out: with capped scores, and with sinks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def explicit_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    chance: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention of [1, heads, queries, width] queries, for what torch's own attention doesn't have.

    Args:
        query: the queries.
        key: [1, key heads, keys, width] keys.
        value: the values, of the keys' shape.
        mask: [queries, keys] bool mask; None for a causal one.
        scaling: factor of the scores; None for that of the width.
        chance: chance that dropout drops a weight.
        softcap: scores are capped to ``softcap * tanh(score / softcap)`` before masking (Gemma 2).
        sinks: [heads] scores of a key that every query sees and that has no value (GPT-OSS).
    """
    repeats = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(repeats, 1) for part in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if sinks is not None:
        scores = torch.cat([scores, sinks.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)], -1)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
    return functional.dropout(weights[..., : key.shape[2]], chance) @ value
