"""`Engine`: log-probabilities and losses of groups in the chosen layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bfpo.engine.attention import Attention, attends_by_group
from bfpo.engine.head import FusedLoss, LogitShape, answer_logps, group_losses
from bfpo.engine.layout import Layout, Stream, build_stream
from bfpo.engine.micro_batches import split
from bfpo.engine.padded import padded_logps
from bfpo.groups import GroupLogps, LossInputs, TokenGroup


@dataclass(frozen=True)
class Engine:
    """Scores groups with a model, in token-budgeted micro-batches that don't change the result.

    Attributes:
        model: the causal language model without wrappers for adapters or data parallelism.
        layout: layout of groups, see `choose_layout`.
        max_tokens: largest number of tokens in a micro-batch, padding included.
        attention: attention implementation for streams.
    """

    model: PreTrainedModel
    layout: Layout
    max_tokens: int
    attention: Attention = "pieces"

    def split(self, groups: Sequence[TokenGroup]) -> list[list[int]]:
        """Micro-batches of at most ``max_tokens``: indices of their groups, longest first."""
        return split(groups, self.layout, self.max_tokens)

    def attached(self) -> AbstractContextManager[None]:
        """Context in which forward and backward must run (activation checkpointing recomputes the forward)."""
        return nullcontext() if self.layout == "padded" else attends_by_group(self.model, self.attention)

    def logps(self, model: nn.Module, groups: Sequence[TokenGroup]) -> GroupLogps:
        """Differentiable log-probabilities of a micro-batch's answers; ``model`` includes its wrappers."""
        if self.layout == "padded":
            return padded_logps(model, groups)
        stream = build_stream(groups, self.layout, next(model.parameters()).device)
        shape = LogitShape.of(self.model.config)
        [policy] = self._at_head(model, stream, lambda head, hidden: [answer_logps(hidden, head, stream, shape)])
        return GroupLogps(policy, None, stream.tokens, stream.group, len(stream.sizes))

    def loss(self, model: nn.Module, groups: Sequence[TokenGroup], inputs: LossInputs) -> tuple[Tensor, GroupLogps]:
        """Differentiable loss summed over a micro-batch's groups, and its detached log-probabilities."""
        head: Any = self._head
        # Sharding (fully_shard) puts a subclass in place of the class, adapters and quantization another forward.
        is_one_matrix = type(head).forward is nn.Linear.forward and head.bias is None
        kind = next(model.parameters()).device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        # In float16 the fused loss's gradients would underflow before the scaler multiplies them.
        if self.layout == "padded" or not is_one_matrix or not torch.is_grad_enabled() or dtype is torch.float16:
            logps = self.logps(model, groups)
            loss, policy = group_losses(logps, inputs).sum(), logps.policy.detach()
            return loss, replace(logps, policy=policy, reference=inputs.reference)
        stream = build_stream(groups, self.layout, next(model.parameters()).device)
        shape = LogitShape.of(self.model.config)

        def fused(_: Any, hidden: Tensor) -> Any:
            with torch.autocast(kind, enabled=False):
                return FusedLoss.apply(hidden.to(dtype or hidden.dtype), head.weight, stream, inputs, shape)

        loss, policy = self._at_head(model, stream, fused)
        return loss, GroupLogps(policy, inputs.reference, stream.tokens, stream.group, len(stream.sizes))

    @property
    def _head(self) -> nn.Module:
        head = self.model.get_output_embeddings()
        assert isinstance(head, nn.Module)
        return head

    def hidden(self, model: nn.Module, stream: Stream) -> Tensor:
        """[R, width] input of the model's output head at the scored positions."""
        return self._at_head(model, stream, lambda _, hidden: [hidden])[0]

    def _at_head(self, model: nn.Module, stream: Stream, compute: Callable[[Any, Tensor], Sequence[Tensor]]) -> Any:
        """Results of a computation that takes the place of the head's forward, the first of them differentiable.

        Where weights are sharded, the head's is whole only during its forward, and in the backward pass once the
        gradient of its output arrives: so the computation runs there, and its result leaves by the model's output too.

        ``compute`` is a function of the head's own forward and of [R, width] hidden states at the scored positions.
        """
        head, results = self._head, []
        own, is_own_attribute = head.forward, "forward" in vars(head)

        def forward(hidden: Tensor) -> Tensor:
            results[:] = compute(own, hidden[0, stream.scored])
            return results[0].sum().expand(1, 1, 1).clone()

        head.forward = forward
        try:
            output = model(
                input_ids=stream.input_ids,
                position_ids=stream.position_ids,
                attention_mask=None,
                use_cache=False,
                stream=stream,
            )
        finally:
            del head.forward
            if is_own_attribute:
                head.forward = own
        return [results[0] + 0 * output.logits.sum().nan_to_num(), *results[1:]]
