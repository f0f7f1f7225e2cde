"""Which tokens of a stream see which, as its pieces have it and as its sequences ask for."""

import torch


def seen_pairs(stream, window):
    """[T, T] whether a query sees a key, as the pieces have it; they cover the queries in order."""
    total = sum(stream.atoms)
    starts = torch.tensor([0, *stream.atoms]).cumsum(0)
    seen = torch.zeros(total, total, dtype=torch.bool)
    at = 0
    for piece, mask in zip(stream.pieces, stream.masks(window), strict=True):
        keys = torch.cat([torch.arange(starts[atom], starts[atom] + stream.atoms[atom]) for atom in piece.atoms])
        rows = torch.ones(piece.queries, len(keys), dtype=torch.bool).tril() if mask is None else mask
        assert piece.start == at
        seen[at : at + piece.queries, keys] = rows
        at += piece.queries
    assert at == total
    return seen


def expected_pairs(places, window):
    """[T, T] whether a query sees a key if every sequence, given by its places, is causal by itself."""
    total = 1 + max(place for own in places for place in own)
    expected = torch.zeros(total, total, dtype=torch.bool)
    for own in map(torch.tensor, places):
        order = torch.arange(len(own))
        back = order[:, None] - order
        expected[own[:, None], own] |= (back >= 0) & (back < (window or 10**6))
    return expected
