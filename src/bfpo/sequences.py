"""Functions of sequences of token ids."""

from __future__ import annotations

from collections.abc import Sequence


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of tokens in which two sequences begin alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, its) in pairs if mine != its), min(len(one), len(other)))


def packed(sizes: Sequence[int], max_tokens: int, most: int | None = None) -> list[list[int]]:
    """Batches of sequences of similar size, as their places, the shortest first.

    Args:
        sizes: number of tokens of each sequence.
        max_tokens: largest number of tokens in a batch, padding included; a longer sequence is alone.
        most: largest number of sequences in a batch; None for no limit.
    """
    batches: list[list[int]] = []
    for at in sorted(range(len(sizes)), key=lambda at: sizes[at]):
        # The longest so far sets the width.
        if not batches or len(batches[-1]) == most or (len(batches[-1]) + 1) * sizes[at] > max_tokens:
            batches.append([])
        batches[-1].append(at)
    return batches
