"""Sequences as one stream in which neighbors share what they begin with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bfpo.engine.layout import Row, Stream
from bfpo.sequences import common_length


def build_tree(
    sequences: Sequence[Sequence[int]], least: int | None, device: torch.device | str = "cpu"
) -> tuple[Stream, list[list[int]]]:
    """Lay out sequences as one stream that predicts nothing yet, and the places of each sequence's tokens in it.

    A sequence shares its beginning with the one before if that has ``least`` tokens or more, so that sorted ones share
    most. With None, nothing is shared.
    """
    row = Row()
    places: list[list[int]] = []
    before: Sequence[int] = ()
    for ids in sequences:
        shared = common_length(before, ids)
        row.add(ids, 0 if least is None or shared < least else shared)
        places.append(row.places())
        before = ids
    return row.stream(device), places
