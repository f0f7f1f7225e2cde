"""Truncation of answers that exceed a judge's limit; template and question stay whole."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass, replace

from bfpo.judges.verdict import Exchange

TOO_LONG = "question too long"


@dataclass(frozen=True)
class Fitting:
    """An exchange within the limit, and whether its answer was cut."""

    exchange: Exchange
    cut: bool


def cut_to_fit(exchange: Exchange, size: Callable[[Exchange], Sized], limit: int) -> Fitting | None:
    """Cut the end of an exchange's answer to fit a limit.

    Args:
        exchange: prompt and answer.
        size: function that renders a request, whose length counts.
        limit: largest length.

    Returns:
        None if no character of the answer other than white space fits.
    """
    if len(size(exchange)) <= limit:
        return Fitting(exchange, False)
    low, high = 0, len(exchange.answer)
    # Bisection, because only tokenizing the whole request gives its length.
    while low < high:
        middle = (low + high + 1) // 2
        if len(size(replace(exchange, answer=exchange.answer[:middle]))) <= limit:
            low = middle
        else:
            high = middle - 1
    kept = exchange.answer[:low]
    return Fitting(replace(exchange, answer=kept), True) if kept.strip() else None
