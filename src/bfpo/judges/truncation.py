"""Truncation of answers that exceed a judge's limit; template and question stay whole."""

from __future__ import annotations

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
    low, high = 0, len(exchange.answer)
    # Bisection, because only tokenizing the whole request gives its length.
    while low < high:
        middle = (low + high + 1) // 2
        if len(size(replace(exchange, answer=exchange.answer[:middle]))) <= limit:
            low = middle
        else:
            high = middle - 1
    kept = exchange.answer[:low]
    return replace(exchange, answer=kept) if kept.strip() else None
