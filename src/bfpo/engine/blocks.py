"""Attention over a stream of groups by blocks: one FlexAttention kernel with a block mask over the whole row."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from bfpo.engine.layout import Stream, sees


def attend_by_blocks(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    stream: Stream,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of [1, heads, T, width] queries in one call; returns [1, T, heads, width]. There is no dropout."""
    if s_aux is not None:
        raise NotImplementedError("there are no attention sinks")
    query, key, value = _in_one_precision(query, key, value)
    attend: Any = _compiled(flex_attention) if query.is_cuda else flex_attention
    output = attend(
        query,
        key,
        value,
        score_mod=None if softcap is None else stream.remember(("cap", softcap), lambda: _cap(softcap, query.device)),
        block_mask=stream.remember(("blocks", sliding_window), lambda: _block_mask(stream, sliding_window)),
        scale=scaling,
        enable_gqa=True,
        # Left to choose, torch takes its decoding kernel for less than 128 tokens, and fails where the heads that share
        # keys make more than 128 queries of them.
        kernel_options={"BACKEND": "TRITON"},
    )
    return output.transpose(1, 2).contiguous(), None


def _in_one_precision(*parts: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values in autocast's precision, if any.

    Under autocast the rotation leaves queries and keys in float32 beside half-precision values. torch's own attention
    casts them; FlexAttention refuses them.
    """
    kind = parts[0].device.type
    return (
        tuple(part.to(torch.get_autocast_dtype(kind)) for part in parts) if torch.is_autocast_enabled(kind) else parts
    )


class _Kept(torch.autograd.Function):
    """Keeps what FlexAttention keeps for its backward pass, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        output = query.new_empty(query.shape)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output


def keep_as_by_blocks(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """Stand-in for `attend_by_blocks` where memory on a GPU is counted without one; shapes as there."""
    output: Any = _Kept.apply(*_in_one_precision(query, key, value))
    return output.transpose(1, 2).contiguous(), None


def _cap(softcap: float, device: torch.device) -> Callable[..., Tensor]:
    """Function of FlexAttention that caps scores."""
    # Here and below a tensor, as a number would become a symbol in compiled code, which the kernels can't take.
    bound = torch.full((), softcap, device=device)
    return lambda score, *_: bound * torch.tanh(score / bound)


def _block_mask(stream: Stream, window: int | None) -> BlockMask:
    """Mask of the blocks of keys that each block of queries sees."""
    until, position = stream.until, stream.position_ids[0]
    limit = None if window is None else torch.full((), window, device=until.device)

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees(query, key, until, position, limit)

    make: Any = _compiled(create_block_mask) if until.is_cuda else create_block_mask
    return make(visible, None, None, len(until), len(until), device=str(until.device))


@cache
def _compiled(function: Any) -> Any:
    # The number of tokens differs from step to step.
    return torch.compile(function, dynamic=True)
