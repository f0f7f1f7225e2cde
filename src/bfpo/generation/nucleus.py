"""Nucleus sampling (Holtzman et al. 2020, arXiv 1904.09751) by inverse transform, one uniform number per row."""

from __future__ import annotations

import torch
from torch import Tensor

# Number of likeliest tokens that are looked at before a whole vocabulary is sorted.
_LIKELY = 256
# Distance from a decision within which rounding in float32 might change it.
_MARGIN = 1e-5
# Largest number of probabilities sorted in double precision at once: 64 MB.
_SORTED_AT_ONCE = 8_000_000


def sample_tokens(scores: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """[R] tokens, each drawn from the likeliest ones that together reach ``top_p``, in order of probability.

    The likeliest few tokens decide nearly every row. Rows that they don't decide are sorted whole, so the result
    always equals that of `sample_sorted`.

    Args:
        scores: [R, V] float32 logits.
        uniform: [R] float64 numbers in [0, 1), one per row.
        temperature: temperature of the softmax, > 0.
        top_p: probability mass of the nucleus.
    """
    if scores.shape[1] <= _LIKELY:
        return sample_sorted(scores, uniform, temperature, top_p)
    tokens, decided = _from_likeliest(scores, uniform, temperature, top_p)
    open_rows = torch.nonzero(~decided)[:, 0]
    at_once = max(1, _SORTED_AT_ONCE // scores.shape[1])
    for rows in open_rows.split(at_once):
        tokens[rows] = sample_sorted(scores[rows], uniform[rows], temperature, top_p)
    return tokens


def sample_sorted(scores: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """The same tokens from probabilities in float64, all of them sorted; equal ones stay in the vocabulary's order."""
    likely, order = (scores.double() / temperature).softmax(-1).sort(descending=True, stable=True)
    reached = likely.cumsum(-1)
    likely = likely.where(reached - likely < top_p, 0.0)
    reached = likely.cumsum(-1)
    # Rounding must not select a token beyond the nucleus.
    place = torch.searchsorted(reached, (uniform * reached[:, -1])[:, None], right=True)[:, 0]
    return order.gather(1, torch.minimum(place, (likely > 0).sum(-1) - 1)[:, None])[:, 0]


def _from_likeliest(scores: Tensor, uniform: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """[R] tokens from the likeliest ones of each row, and whether these decide the row."""
    values, order = scores.topk(_LIKELY, -1)
    order, by_token = order.sort(-1)
    values, place = values.gather(1, by_token).sort(dim=-1, descending=True, stable=True)
    order = order.gather(1, place)
    total = (scores / temperature).logsumexp(-1, keepdim=True)
    likely = (values.double() / temperature - total.double()).exp()
    reached = likely.cumsum(-1)
    before = reached - likely
    inside = before < top_p
    size = inside.sum(-1, keepdim=True)
    # Beyond the last of the likeliest there may be others with the same score, in another order.
    ends = values.gather(1, size - 1) > values[:, -1:]
    mass = reached.gather(1, size - 1) if top_p < 1 else torch.ones_like(likely[:, :1])
    wanted = uniform[:, None] * mass
    place = torch.searchsorted(reached, wanted, right=True)
    in_doubt = ((before - top_p).abs() < _MARGIN) | ((reached - wanted).abs() < _MARGIN)
    place = torch.minimum(place, size - 1)
    decided = ends | (top_p >= 1) & (values.gather(1, place) > values[:, -1:])
    return order.gather(1, place)[:, 0], (decided & ~in_doubt.any(-1, keepdim=True))[:, 0]
