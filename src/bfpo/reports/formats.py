"""How the page and the terminal write numbers."""

from __future__ import annotations


def format_number(value: float, digits: int = 2) -> str:
    """``.98``, ``1.0``, ``−.02``: a rate without its leading zero."""
    text = f"{abs(value):.{digits}f}"
    sign = "−" if value < 0 and float(text) else ""
    if float(text) == 1:
        text = "1.0"
    return sign + (text[1:] if text.startswith("0.") else text)


def format_signed(value: float, digits: int = 2) -> str:
    """``+.51``, ``−.02``: a difference with its sign."""
    text = format_number(value, digits)
    return text if text.startswith("−") or not float(text) else f"+{text}"


def format_p(value: float | None) -> str:
    """A p-value: ``.03``, ``< .001``; a dash where there is none."""
    if value is None:
        return "–"
    return "< .001" if value < 0.001 else format_number(value, 3 if value < 0.01 else 2)


def format_seconds(seconds: float) -> str:
    """``42 s``, ``12 min``, ``3.4 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
