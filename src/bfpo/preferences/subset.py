"""Seeded random subsets of rows, and rows held out for evaluation."""

from __future__ import annotations

import json
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


def hold_out(rows: datasets.Dataset, fraction: float, seed: int) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Rows to train on and rows held out, in source order; rows with the same prompt stay together.

    Args:
        rows: rows of `load_preferences`.
        fraction: share of the different prompts to hold out, rounded, and at least one.
        seed: random seed.
    """
    numbers: dict[str, int] = {}
    prompt = np.array([numbers.setdefault(json.dumps(prompt), len(numbers)) for prompt in rows["prompt"]])
    drawn = np.random.default_rng(seed).permutation(len(numbers))[: max(1, round(fraction * len(numbers)))]
    held_out = np.isin(prompt, drawn)
    return rows.select(np.flatnonzero(~held_out)), rows.select(np.flatnonzero(held_out))
