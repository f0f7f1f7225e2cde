"""What is too long to be asked: the answer gives way at its end; rules and question stay whole."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass, replace

from bfpo.judges.verdict import Exchange

TOO_LONG = "question too long"


@dataclass(frozen=True)
class Fitting:
    """An exchange that can be asked, and whether its answer was cut for that."""

    exchange: Exchange
    cut: bool


def cut_to_fit(exchange: Exchange, size: Callable[[Exchange], Sized], limit: int) -> Fitting | None:
    """The exchange with as much of its answer, from the beginning, as the limit leaves room for.

    Args:
        exchange: with any answer.
        size: what is asked of it, as something with a length.
        limit: of that length.

    Returns:
        None if not even one character of the answer fits: what then is asked would not be about it.
    """
    if len(size(exchange)) <= limit:
        return Fitting(exchange, False)
    low, high = 0, len(exchange.answer)
    # Sizes are tokens of joined texts, which only a count of the whole gives: bisection finds the longest that fits.
    while low < high:
        middle = (low + high + 1) // 2
        if len(size(replace(exchange, answer=exchange.answer[:middle]))) <= limit:
            low = middle
        else:
            high = middle - 1
    kept = exchange.answer[:low]
    return Fitting(replace(exchange, answer=kept), True) if kept.strip() else None
