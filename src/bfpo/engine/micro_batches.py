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
    padded = layout == "padded"
    sizes = [group.width if padded else stream_tokens(group, layout) for group in groups]
    batches: list[list[int]] = []
    used = 0
    for index in sorted(range(len(groups)), key=lambda index: (-sizes[index], index)):
        own = len(groups[index].answers) if padded else sizes[index]
        # Every answer of a padded batch is as wide as its first group.
        width = sizes[batches[-1][0]] if padded and batches else 1
        if not batches or (used + own) * width > max_tokens:
            batches.append([])
            used = 0
        batches[-1].append(index)
        used += own
    return batches


def batch_tokens(groups: Sequence[TokenGroup], layout: Layout) -> int:
    """Number of tokens that go through the model for a micro-batch."""
    if layout == "padded":
        return sum(len(group.answers) for group in groups) * max(group.width for group in groups)
    return sum(stream_tokens(group, layout) for group in groups)
