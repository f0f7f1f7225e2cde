"""Attention over a stream of groups, added to transformers' registry of attention functions.

*Pieces* calls torch's own attention once per piece of the stream; *blocks* runs one FlexAttention kernel with a block
mask. Which is faster depends on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from bfpo.engine.blocks import attend_by_blocks, keep_as_by_blocks
from bfpo.engine.explicit_attention import explicit_attention
from bfpo.engine.layout import Stream

Attention = Literal["pieces", "blocks"]


def _attend_by_pieces(
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
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of [1, heads, T, width] queries, piece by piece; returns [1, T, heads, width]."""
    keys, values = key.split(stream.atoms, 2), value.split(stream.atoms, 2)
    is_plain = softcap is None and s_aux is None
    attend = _plain if is_plain else partial(explicit_attention, softcap=softcap, sinks=s_aux)
    outputs = []
    parts = query.split([piece.queries for piece in stream.pieces], 2)
    for piece, part, mask in zip(stream.pieces, parts, stream.masks(sliding_window), strict=True):
        part_keys = _join([keys[atom] for atom in piece.atoms])
        part_values = _join([values[atom] for atom in piece.atoms])
        outputs.append(attend(part, part_keys, part_values, mask, scaling, dropout))
    return _join(outputs).transpose(1, 2).contiguous(), None


def _plain(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, chance: float
) -> Tensor:
    attend: Any = partial(
        scaled_dot_product_attention,
        attn_mask=mask,
        dropout_p=chance,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=True,
    )
    half = torch.is_autocast_enabled("cpu") or value.dtype in (torch.bfloat16, torch.float16)
    if value.device.type != "cpu" or not half:
        return attend(query, key, value)
    # On CPU torch compiles and keeps a bfloat16 kernel for every new shape, which takes longer than the attention
    # (docs/engine.md); in float32 it calls the matrix library.
    with torch.autocast("cpu", enabled=False):
        return attend(query.float(), key.float(), value.float()).to(value.dtype)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


_NAMES = {"pieces": "bfpo_pieces", "blocks": "bfpo_blocks", "counted": "bfpo_counted"}
_FUNCTIONS = {"pieces": _attend_by_pieces, "blocks": attend_by_blocks, "counted": keep_as_by_blocks}
for _attention, _name in _NAMES.items():
    AttentionInterface.register(_name, _FUNCTIONS[_attention])
    # The stream has its own masks; a full mask would be T x T.
    AttentionMaskInterface.register(_name, lambda *_, **__: None)  # pyright: ignore


@contextmanager
def attends_by_group(model: PreTrainedModel, attention: Attention | Literal["counted"]) -> Iterator[None]:
    """Context in which the model attends within a stream's groups, including layers recomputed in the backward.

    "counted" attends to nothing, and keeps as much as "blocks" does.
    """
    before = model.config._attn_implementation or "eager"  # pyright: ignore[reportPrivateUsage]
    model.set_attn_implementation(_NAMES[attention])
    try:
        yield
    finally:
        model.set_attn_implementation(before)
