"""Bands that a recipe expects of its results (``expected``), and whether a run is in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Expected:
    """One figure, the band that the recipe expects, and what was found.

    Attributes:
        name: name of a metric in the log, or of a SafeHelp figure.
        low: lower end of the band.
        high: its upper end.
        found: the figure; None if nothing measured it.
    """

    name: str
    low: float
    high: float
    found: float | None

    @property
    def is_met(self) -> bool:
        """Whether the figure was found in the band."""
        return self.found is not None and self.low <= self.found <= self.high

    def __str__(self) -> str:
        """One line for people."""
        found = "not measured" if self.found is None else f"{self.found:.4g}, {'in' if self.is_met else 'outside'}"
        return f"{self.name}: expected {self.low:.4g} to {self.high:.4g}: {found}"


def compared(band: Mapping[str, Sequence[float]], found: Mapping[str, float]) -> list[Expected]:
    """What was expected (lower and upper end by name, as in a recipe) beside what was found (figures by name)."""
    return [Expected(name, low, high, found.get(name)) for name, (low, high) in band.items()]


def last_metrics(log: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The last value of every metric in a run's log."""
    last: dict[str, float] = {}
    for entry in log:
        last |= {name: float(value) for name, value in entry.items() if isinstance(value, int | float)}
    return last


def check_band(band: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """A recipe's bands, for pydantic.

    Raises:
        ValueError: if a band has an end that isn't a number, or is upside down.
    """
    for name, (low, high) in band.items():
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ValueError(f"{name}: [{low}, {high}] is not a valid band; write [LOW, HIGH]")
    return band
