"""Micro-batches: groups split by a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from bfpo.engine.layout import Layout, stream_tokens
from bfpo.groups import TokenGroup


def split(groups: Sequence[TokenGroup], layout: Layout, max_tokens: int) -> list[list[int]]:
    """Split groups into micro-batches of at most ``max_tokens`` tokens in a layout; padding counts.

    A group is never split; one that exceeds the budget is its own micro-batch.

    Returns:
        Indices of the groups in every micro-batch, longest groups first, so that memory peaks at the start.
    """
    if layout == "padded":
        return _split_padded(groups, max_tokens)
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
    """Number of tokens that go through the model for a micro-batch."""
    if layout == "padded":
        return sum(len(group.answers) for group in groups) * max(group.width for group in groups)
    return sum(stream_tokens(group, layout) for group in groups)


def _split_padded(groups: Sequence[TokenGroup], max_tokens: int) -> list[list[int]]:
    order = sorted(range(len(groups)), key=lambda index: (-groups[index].width, index))
    batches: list[list[int]] = []
    rows = width = 0
    for index in order:
        rows += len(groups[index].answers)
        if not batches or rows * width > max_tokens:
            batches.append([])
            rows, width = len(groups[index].answers), groups[index].width
        batches[-1].append(index)
    return batches
