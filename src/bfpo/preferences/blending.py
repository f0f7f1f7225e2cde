"""Sampling rows: in proportion to source weights, or equally from every safety cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bfpo.errors import BfpoError
from bfpo.preferences.answers import is_pair

if TYPE_CHECKING:
    import datasets

Balance = Literal["repeat", "leave_out"]


@dataclass(frozen=True)
class DrawCounts:
    """Counts of rows, draws, draws that repeat a row, and rows never drawn."""

    rows: int
    drawn: int
    repeats: int
    leftovers: int


def balanced(rows: datasets.Dataset, balance: Balance, seed: int) -> tuple[datasets.Dataset, DrawCounts]:
    """Draw the same number of rows from every safety cell that occurs, in the order of the source.

    Args:
        rows: pairs whose flags are known; a flag of 1/2 or more is safe.
        balance: "repeat" draws as many rows from every cell as the largest has, "leave_out" as the smallest.
        seed: random seed for the draws.

    Raises:
        BfpoError: if the rows are not pairs, or a flag is unknown.
    """
    if not is_pair(rows.column_names):
        raise BfpoError("only pairs can be balanced by safety cell, but these rows have K answers; remove 'balance'")
    cells: dict[tuple[bool, bool], list[int]] = {}
    flags = zip(rows["chosen_is_safe"], rows["rejected_is_safe"], rows["row"], strict=True)
    for at, (chosen, rejected, number) in enumerate(flags):
        if chosen is None or rejected is None:
            raise BfpoError(f"row {number} can't be balanced because its safety is unknown; label it first")
        cells.setdefault((chosen >= 0.5, rejected >= 0.5), []).append(at)
    wanted = (max if balance == "repeat" else min)(len(members) for members in cells.values())
    random = np.random.default_rng([seed, 2])
    drawn = [np.array(members)[draw(len(members), wanted, random)] for _, members in sorted(cells.items())]
    return _selected(rows, np.concatenate(drawn))


def weighted(
    sources: Sequence[datasets.Dataset], weights: Sequence[float], seeds: Sequence[int]
) -> list[tuple[datasets.Dataset, DrawCounts]]:
    """Draw rows from every source of a role in proportion to its weight (> 0), in total as many as all have together.

    A source with more draws than rows repeats in full passes.
    """
    total = sum(len(rows) for rows in sources)
    shares = np.cumsum(weights) / sum(weights) * total
    # Rounding the cumulative sums instead of the shares keeps the total.
    wanted = np.diff(np.rint(shares).astype(int), prepend=0)
    return [
        _selected(rows, draw(len(rows), int(count), np.random.default_rng([seed, 3])))
        for rows, count, seed in zip(sources, wanted, seeds, strict=True)
    ]


def draw(rows: int, wanted: int, random: np.random.Generator) -> np.ndarray:
    """[wanted] row indices from shuffled passes over the rows, so that row counts differ by at most one."""
    passes = -(-wanted // rows)
    return np.concatenate([random.permutation(rows) for _ in range(passes)] or [np.empty(0, int)])[:wanted]


def _selected(rows: datasets.Dataset, drawn: np.ndarray) -> tuple[datasets.Dataset, DrawCounts]:
    distinct = len(np.unique(drawn))
    counts = DrawCounts(len(rows), len(drawn), len(drawn) - distinct, len(rows) - distinct)
    return rows.select(np.sort(drawn)), counts
