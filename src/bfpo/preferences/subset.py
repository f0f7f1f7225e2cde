"""Seeded random subsets of rows, and rows held out for evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
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


def prompts_to_hold_out(sources: Sequence[datasets.Dataset], fraction: float, seed: int) -> frozenset[str]:
    """Prompts, as JSON, to hold out of several sources at once.

    Args:
        sources: rows of `load_preferences`.
        fraction: share of the different prompts to hold out, rounded, and at least one.
        seed: random seed.
    """
    prompts = [*dict.fromkeys(json.dumps(prompt) for rows in sources for prompt in rows["prompt"])]
    drawn = np.random.default_rng(seed).permutation(len(prompts))[: max(1, round(fraction * len(prompts)))]
    return frozenset(prompts[at] for at in drawn)


def hold_out(rows: datasets.Dataset, prompts: frozenset[str]) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Rows to train on and rows held out, those with one of the prompts (as JSON), in source order."""
    held_out = np.array([json.dumps(prompt) in prompts for prompt in rows["prompt"]], dtype=bool)
    return rows.select(np.flatnonzero(~held_out)), rows.select(np.flatnonzero(held_out))
