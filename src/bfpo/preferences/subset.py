"""Seeded random subsets, whose ``row`` column says which rows they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import datasets


def subset(
    rows: datasets.Dataset, *, fraction: float | None = None, limit: int | None = None, seed: int = 0
) -> datasets.Dataset:
    """A random share of the rows, at most ``limit`` of them, in the order of the source.

    Args:
        rows: rows of `load_preferences`.
        fraction: share to keep, rounded to the nearest number of rows.
        limit: most rows to keep.
        seed: of the draw; the same seed draws the same rows anywhere.
    """
    count = len(rows) if fraction is None else round(fraction * len(rows))
    if limit is not None:
        count = min(count, limit)
    return rows.select(np.sort(np.random.default_rng(seed).permutation(len(rows))[:count]))
