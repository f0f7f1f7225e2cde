"""`Engine`: log-probabilities and losses of groups in the chosen layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

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
        policy = answer_logps(self.hidden(model, stream), self._head, stream, LogitShape.of(self.model.config))
        return GroupLogps(policy, None, stream.tokens, stream.group)

    def loss(self, model: nn.Module, groups: Sequence[TokenGroup], inputs: LossInputs) -> tuple[Tensor, GroupLogps]:
        """Differentiable loss summed over a micro-batch's groups, and its detached log-probabilities.

        Args:
            model: the model with its wrappers.
            groups: the groups of the micro-batch.
            inputs: the objective, and the labels and reference of these groups.
        """
        head = self._head
        is_one_matrix = type(head) is nn.Linear and head.bias is None  # pyright: ignore[reportUnnecessaryComparison]
        if self.layout == "padded" or not is_one_matrix or not torch.is_grad_enabled():
            logps = self.logps(model, groups)
            loss, policy = group_losses(logps, inputs).sum(), logps.policy.detach()
            return loss, GroupLogps(policy, inputs.reference, logps.tokens, logps.group)
        stream = build_stream(groups, self.layout, next(model.parameters()).device)
        hidden, weight = self.hidden(model, stream), head.weight
        kind = hidden.device.type
        if torch.is_autocast_enabled(kind):
            hidden = hidden.to(torch.get_autocast_dtype(kind))
        with torch.autocast(kind, enabled=False):
            loss, policy = FusedLoss.apply(hidden, weight, stream, inputs, LogitShape.of(self.model.config))  # pyright: ignore
        return loss, GroupLogps(policy, inputs.reference, stream.tokens, stream.group)

    @property
    def _head(self) -> nn.Module:
        head = self.model.get_output_embeddings()
        assert isinstance(head, nn.Module)
        return head

    def hidden(self, model: nn.Module, stream: Stream) -> Tensor:
        """[R, width] input of the model's output head at the scored positions."""
        with _intercept(self._head) as taken:
            model(
                input_ids=stream.input_ids,
                position_ids=stream.position_ids,
                attention_mask=None,
                use_cache=False,
                stream=stream,
            )
        return taken[0][0, stream.scored]


@contextmanager
def _intercept(head: nn.Module) -> Iterator[list[Tensor]]:
    """Record the head's input, and pass only one position on to the head, whose logits are unused."""
    taken: list[Tensor] = []

    def take(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        taken.append(arguments[0])
        return (arguments[0][:, :1],)

    handle = head.register_forward_pre_hook(take)
    try:
        yield taken
    finally:
        handle.remove()
