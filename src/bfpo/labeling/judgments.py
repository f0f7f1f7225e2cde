"""Pairs for overall judgments, with the same quota for every safety cell, from which b1 and alpha are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from sys import intern
from typing import Any

import numpy as np

from bfpo.errors import BfpoError
from bfpo.labeling.fitted import COLUMNS, HARM
from bfpo.preferences.answers import flags_of, is_pair
from bfpo.preferences.harm import harm_levels
from bfpo.preferences.label_columns import HUMAN, flag_sources
from bfpo.preferences.reading import Row
from bfpo.preferences.schema import HARM_COLUMNS
from bfpo.preferences.tally import cell_of


def judgment_rows(rows: Sequence[Row], count: int, *, seed: int = 0) -> list[Row]:
    """Rows for people to judge, in the columns of `fit_file`: the safety cells in turns, at most one pair per prompt.

    Judgments balanced over the cells determine b1 best, and real cells are far from it: safe answers to a prompt go
    together. The cell is that of the flags in the rows, of which some are verdicts, so people who judge a pair also
    label its flags: drawing by verdicts then biases nothing.

    Args:
        rows: pairs of `label_preferences`; K answers and pairs without flags or order are left out.
        count: number of rows; fewer if there aren't as many.
        seed: random seed for the draws.

    Raises:
        BfpoError: if there is no such pair.
    """
    pools: dict[str, list[int]] = {}
    cells = [_cell(row) for row in rows]
    for at in np.random.default_rng(seed).permutation(len(cells)).tolist():
        if cells[at]:
            pools.setdefault(cells[at], []).append(at)
    if not pools:
        raise BfpoError("no pair has two flags and an order, so there is nothing for overall judgments")
    seen: set[str] = set()
    drawn: list[Row] = []
    for cell in cycle(sorted(pools)):
        if len(drawn) == count or not any(pools.values()):
            break
        while pools[cell]:
            row = rows[pools[cell].pop()]
            if (prompt := repr(row["prompt"])) not in seen:
                seen.add(prompt)
                drawn.append(_asked(row))
                break
    return drawn


def _cell(row: Row) -> str:
    """The safety cell of a pair with flags and an order; "" for other rows."""
    if is_pair(row) and row["chosen_is_better"] not in (None, 0.5) and None not in flags_of(row):
        return intern(cell_of(row))
    return ""


def is_judged(row: Row) -> bool:
    """Whether people filled in anything that a row of a judgments file asks."""
    asked = row.get("asked")
    return any(row.get(name) is not None for name in (asked if isinstance(asked, list) else COLUMNS))


def _asked(row: Row) -> dict[str, Any]:
    """The row with null for what people are asked, and the names of these columns."""
    category = {"category": row["category"]} if isinstance(row.get("category"), str) else {}
    harm = {name: harm_levels(row.get(own)) for name, own in zip(HARM, HARM_COLUMNS["pairs"], strict=True)}
    known = [flag if name in HUMAN else None for flag, name in zip(flags_of(row), flag_sources(row), strict=True)]
    judged = dict(zip(COLUMNS, [*known, None], strict=True))
    return {
        "row": row["row"],
        "prompt": row["prompt"],
        "better": row["chosen"],
        "worse": row["rejected"],
        **judged,
        "asked": [name for name, value in judged.items() if value is None],
        **category,
        **{name: levels for name, levels in harm.items() if levels is not None},
    }
