"""Truncation of answers that exceed a judge's limit; template and question stay whole."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sized
from dataclasses import replace

from bfpo.judges.verdict import Exchange

TOO_LONG = "question too long"


def cut_to_fit(exchange: Exchange, size: Callable[[Exchange], Sized], limit: int) -> Exchange | None:
    """Cut the end of an exchange's answer to fit a limit of the request that ``size`` renders.

    Returns:
        The same object if it fits; None if no character of the answer other than white space does.
    """
    if len(size(exchange)) <= limit:
        return exchange
    # Only tokenizing the whole request gives its length.
    lengths = range(1, len(exchange.answer))
    end = bisect_right(lengths, limit, key=lambda end: len(size(replace(exchange, answer=exchange.answer[:end]))))
    kept = exchange.answer[:end]
    return replace(exchange, answer=kept) if kept.strip() else None
