"""Seeded random subsets of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import datasets


def subset(
    rows: datasets.Dataset, *, fraction: float | None = None, limit: int | None = None, seed: int = 0
) -> datasets.Dataset:
    """A random subset in source order; equal seeds draw equal rows on every machine.

    Args:
        rows: rows of `load_preferences`.
        fraction: share of rows to keep, rounded to whole rows.
        limit: largest number of rows to keep.
        seed: random seed.
    """
    count = len(rows) if fraction is None else round(fraction * len(rows))
    if limit is not None:
        count = min(count, limit)
    return rows.select(np.sort(np.random.default_rng(seed).permutation(len(rows))[:count]))
