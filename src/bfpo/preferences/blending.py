"""Which rows of a source are drawn, and how often: by weight among sources, and evenly by safety cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bfpo.errors import BfpoError

if TYPE_CHECKING:
    import datasets

Balance = Literal["repeat", "leave_out"]


@dataclass(frozen=True)
class DrawCounts:
    """What drawing did: rows there were, draws, draws that repeat a row, and rows that were left out."""

    rows: int
    drawn: int
    repeats: int
    leftovers: int


def balanced(rows: datasets.Dataset, balance: Balance, seed: int) -> tuple[datasets.Dataset, DrawCounts]:
    """The same number of rows of every safety cell that occurs, in the order of the source.

    Args:
        rows: pairs whose flags are known; a flag of 1/2 or more is safe.
        balance: "repeat" draws every cell as often as the largest has rows, "leave_out" as the smallest.
        seed: of the draws.

    Raises:
        BfpoError: if the rows are not pairs, or a flag is unknown.
    """
    if "chosen" not in rows.column_names:
        raise BfpoError("only pairs have safety cells to balance: these rows have K answers; remove 'balance'")
    cells: dict[tuple[bool, bool], list[int]] = {}
    flags = zip(rows["chosen_is_safe"], rows["rejected_is_safe"], rows["row"], strict=True)
    for at, (chosen, rejected, number) in enumerate(flags):
        if chosen is None or rejected is None:
            raise BfpoError(f"row {number}: its safety is unknown, so it is in no cell to balance; label it first")
        cells.setdefault((chosen >= 0.5, rejected >= 0.5), []).append(at)
    wanted = (max if balance == "repeat" else min)(len(members) for members in cells.values())
    random = np.random.default_rng([seed, 2])
    drawn = [np.array(members)[draw(len(members), wanted, random)] for _, members in sorted(cells.items())]
    return _selected(rows, np.concatenate(drawn))


def weighted(
    sources: Sequence[datasets.Dataset], weights: Sequence[float], seeds: Sequence[int]
) -> list[tuple[datasets.Dataset, DrawCounts]]:
    """Rows of every source in proportion to the weights, as many in all as the sources have together.

    A source with more draws than rows is passed over again and again, each pass in full before the next begins; one
    with fewer leaves rows out.

    Args:
        sources: of one role.
        weights: of the sources, > 0.
        seeds: of each source's draws.
    """
    total = sum(len(rows) for rows in sources)
    shares = np.cumsum(weights) / sum(weights) * total
    # Rounding the sums, and not the shares, keeps their total.
    wanted = np.diff(np.rint(shares).astype(int), prepend=0)
    return [
        _selected(rows, draw(len(rows), int(count), np.random.default_rng([seed, 3])))
        for rows, count, seed in zip(sources, wanted, seeds, strict=True)
    ]


def draw(rows: int, wanted: int, random: np.random.Generator) -> np.ndarray:
    """``wanted`` row numbers of shuffled passes over the rows: no row twice more often than another."""
    passes = -(-wanted // rows)
    return np.concatenate([random.permutation(rows) for _ in range(passes)] or [np.empty(0, int)])[:wanted]


def _selected(rows: datasets.Dataset, drawn: np.ndarray) -> tuple[datasets.Dataset, DrawCounts]:
    distinct = len(np.unique(drawn))
    counts = DrawCounts(len(rows), len(drawn), len(drawn) - distinct, len(rows) - distinct)
    return rows.select(np.sort(drawn)), counts
