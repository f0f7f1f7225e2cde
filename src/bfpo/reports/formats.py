"""Formatting of numbers, intervals and p-values for the page, the model card and the terminal."""

from __future__ import annotations

from bfpo.statistics.intervals import Estimate


def format_number(value: float, digits: int = 2) -> str:
    """``.98``, ``1.0``, ``−.02``: a number without leading zero."""
    text = f"{abs(value):.{digits}f}"
    sign = "−" if value < 0 and float(text) else ""
    if float(text) == 1:
        text = "1.0"
    return sign + (text[1:] if text.startswith("0.") else text)


def format_signed(value: float, digits: int = 2) -> str:
    """``+.51``, ``−.02``: a difference with its sign."""
    text = format_number(value, digits)
    return text if text.startswith("−") or not float(text) else f"+{text}"


def value_and_interval(estimate: Estimate, *, signed: bool = False) -> tuple[str, str]:
    """``.86`` and ``[.83, .89]``, with enough digits to show on which side of 0 the interval ends."""
    digits, numbers = estimate.digits(), (estimate.value, estimate.low, estimate.high)
    value, low, high = (format_signed(n, digits) if signed else format_number(n, digits) for n in numbers)
    return value, f"[{low}, {high}]"


def format_estimate(estimate: Estimate, *, signed: bool = False) -> str:
    """``.86 [.83, .89]``, see `value_and_interval`."""
    return " ".join(value_and_interval(estimate, signed=signed))


def format_p(value: float | None) -> str:
    """A p-value: ``.03``, ``< .001``; a dash if there is none."""
    if value is None:
        return "–"
    return "< .001" if value < 0.001 else format_number(value, 3 if value < 0.01 else 2)


def format_detectable(effect: float | None) -> str:
    """A minimum detectable effect; "n too small" if there is none."""
    return "n too small" if effect is None else format_number(effect)


def format_seconds(seconds: float) -> str:
    """``42 s``, ``12 min``, ``3.4 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def direction(higher_is_better: bool) -> str:
    """The direction of a figure, in words."""
    return "higher is better" if higher_is_better else "lower is better"


def arrow(higher_is_better: bool) -> str:
    """The direction of a figure, as an arrow."""
    return "↑" if higher_is_better else "↓"


def printable(name: str) -> str:
    """A name with the replacement character for every character that can't be printed.

    Some of those change the direction of the text around them.
    """
    return "".join(character if character.isprintable() else "\ufffd" for character in name)
