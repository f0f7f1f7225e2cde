"""Counts taken while the rows of a preference set are read."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bfpo.preferences.answers import flags_of, is_pair
from bfpo.preferences.harm import categories_of
from bfpo.preferences.reading import Row


@dataclass
class Tally:
    """Counts taken while rows are read.

    Of each row only a digest of its texts stays in memory (8 bytes), and its number if its safety is unknown.
    """

    read: int = 0
    usable: int = 0
    dropped_unordered: int = 0
    filled_unordered: int = 0
    split_prompts: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    merged: int = 0
    unknown: array[int] = field(default_factory=lambda: array("q"))
    cells: Counter[str] = field(default_factory=Counter)
    categories: dict[str, Counter[str]] = field(default_factory=dict)
    seen: array[int] = field(default_factory=lambda: array("Q"))
    digest: Any = field(default_factory=hashlib.sha256)

    def keep(self, row: Row) -> None:
        """Count a kept row."""
        cell = cell_of(row)
        self.cells[cell] += 1
        for name in categories_of(row):
            self.categories.setdefault(name, Counter())[cell if is_pair(row) else "rows"] += 1
        texts = [row.get(name) for name in ("prompt", "chosen", "rejected", "responses")]
        self.seen.append(int.from_bytes(hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).digest()))
        self.digest.update(json.dumps(row, sort_keys=True).encode())

    @property
    def different(self) -> int:
        """Number of different rows among the kept ones."""
        return len(np.unique(np.asarray(self.seen)))

    def notes(self) -> dict[str, Any]:
        """The counts under their names in `PreferenceReport`."""
        names = ("read", "dropped_unordered", "filled_unordered", "split_prompts", "merged")
        notes = {name: getattr(self, name) for name in names}
        return notes | {"left_out": dict(self.left_out), "digest": self.digest.hexdigest()}


def cell_of(row: Row) -> str:
    """The safety cell of a row, such as "SU": a letter for each answer, or "unknown"."""
    flags = flags_of(row)
    if any(flag is None for flag in flags):
        return "unknown"
    return "".join("S" if flag >= 0.5 else "U" for flag in flags)
