"""The engine's one entry: log-probabilities and losses of groups, in the layout that a model can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bfpo.engine.attention import Attention, attends_by_group
from bfpo.engine.head import FusedLoss, GroupLoss, LogitShape, answer_logps
from bfpo.engine.layout import Layout, Stream, build_stream, stream_tokens
from bfpo.engine.logps import TokenGroup, group_logps, split_by_tokens
from bfpo.groups import GroupLogps


@dataclass(frozen=True)
class Engine:
    """Scores groups with a model, in token-budgeted micro-batches that never change the result.

    Attributes:
        model: the causal language model itself, without the wrappers of adapters or processes.
        layout: how groups are laid out; see `choose_layout`.
        max_tokens: tokens of a micro-batch, padding included.
        attention: how a stream is attended.
    """

    model: PreTrainedModel
    layout: Layout
    max_tokens: int
    attention: Attention = "pieces"

    def split(self, groups: Sequence[TokenGroup]) -> list[list[int]]:
        """Micro-batches of at most ``max_tokens``: indices of their groups, longest first."""
        return split(groups, self.layout, self.max_tokens)

    def attached(self) -> AbstractContextManager[None]:
        """Whatever uses the engine runs in here, the backward pass (which may recompute) included."""
        return nullcontext() if self.layout == "padded" else attends_by_group(self.model, self.attention)

    def logps(self, model: nn.Module, groups: Sequence[TokenGroup]) -> GroupLogps:
        """Log-probabilities of a micro-batch's answers, differentiable; ``reference`` is None.

        Args:
            model: the model as it is called, i.e. with its wrappers.
            groups: the groups of one micro-batch.
        """
        if self.layout == "padded":
            return group_logps(model, groups)
        stream = build_stream(groups, self.layout, next(model.parameters()).device)
        policy = answer_logps(self.hidden(model, stream), self._head, stream, LogitShape.of(self.model.config))
        return GroupLogps(policy, None, stream.tokens, stream.group)

    def loss(self, model: nn.Module, groups: Sequence[TokenGroup], loss_of: GroupLoss) -> tuple[Tensor, Tensor]:
        """Loss summed over a micro-batch's groups, differentiable, and [N] log-probabilities, which are not.

        Args:
            model: the model as it is called, i.e. with its wrappers.
            groups: the groups of one micro-batch.
            loss_of: the loss of some neighbouring groups, separable by group.
        """
        if self.layout == "padded" or not _is_one_matrix(self._head):
            logps = self.logps(model, groups)
            return loss_of(logps, 0, len(groups)).sum(), logps.policy.detach()
        stream = build_stream(groups, self.layout, next(model.parameters()).device)
        hidden, weight = self.hidden(model, stream), self._head.weight
        kind = hidden.device.type
        if torch.is_autocast_enabled(kind):
            hidden = hidden.to(torch.get_autocast_dtype(kind))
        with torch.autocast(kind, enabled=False):
            total, policy = FusedLoss.apply(hidden, weight, stream, loss_of, LogitShape.of(self.model.config))  # pyright: ignore
        return total, policy

    @property
    def _head(self) -> nn.Module:
        head = self.model.get_output_embeddings()
        assert isinstance(head, nn.Module)
        return head

    def hidden(self, model: nn.Module, stream: Stream) -> Tensor:
        """[R, width] what the model hands its output head, at the scored positions."""
        with _intercept(self._head) as taken:
            model(
                input_ids=stream.input_ids,
                position_ids=stream.position_ids,
                attention_mask=None,
                use_cache=False,
                stream=stream,
            )
        return taken[0][0, stream.scored]


def _is_one_matrix(head: nn.Module) -> bool:
    return type(head) is nn.Linear and head.bias is None  # pyright: ignore[reportUnnecessaryComparison]


@contextmanager
def _intercept(head: nn.Module) -> Iterator[list[Tensor]]:
    """Take what the head is given, and give it one position instead: its logits are never wanted."""
    taken: list[Tensor] = []

    def take(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        taken.append(arguments[0])
        return (arguments[0][:, :1],)

    handle = head.register_forward_pre_hook(take)
    try:
        yield taken
    finally:
        handle.remove()


def split(groups: Sequence[TokenGroup], layout: Layout, max_tokens: int) -> list[list[int]]:
    """Split groups into micro-batches of at most ``max_tokens`` tokens in a layout; a group is never cut.

    Returns:
        Indices of the groups of every micro-batch; the longest group is in the first, so that memory peaks at once.
    """
    if layout == "padded":
        return split_by_tokens(groups, max_tokens)
    sizes = [stream_tokens(group, layout) for group in groups]
    batches: list[list[int]] = []
    size = 0
    for index in sorted(range(len(groups)), key=lambda index: (-sizes[index], index)):
        if not batches or size + sizes[index] > max_tokens:
            batches.append([])
            size = 0
        batches[-1].append(index)
        size += sizes[index]
    return batches


def batch_tokens(groups: Sequence[TokenGroup], layout: Layout) -> int:
    """Tokens that go through the model for a micro-batch."""
    if layout == "padded":
        return sum(len(group.answers) for group in groups) * max(group.width for group in groups)
    return sum(stream_tokens(group, layout) for group in groups)
