"""Harm of answers by category: levels in [0, 1], the form in which rows hold them, and their cost at given prices."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bfpo.errors import BfpoError
from bfpo.preferences.answers import flags_of, is_pair
from bfpo.preferences.reading import Row
from bfpo.preferences.schema import HARM_COLUMNS, RowError, as_list
from bfpo.preferences.strict_json import load_json

if TYPE_CHECKING:
    import datasets

# Level of harm for each of PKU-SafeRLHF's severities: none, minor, moderate, severe (arXiv 2406.15513).
SEVERITY_LEVELS = (0.0, 1 / 3, 2 / 3, 1.0)
# Name in counts of harm whose category is unknown.
UNKNOWN_CATEGORY = "unknown category"
_REMEDY = "write a mapping from each category to a level in [0, 1], e.g. {'theft': 1}, or null where it is unknown"


def harm_text(value: Any, column: str) -> str | None:
    """The JSON text in which a row holds an answer's harm: its categories with a level above 0.

    Args:
        value: a mapping from category to level, or its JSON text; a null level is 0. None or an empty text if unknown.
        column: column of the value, for errors.

    Raises:
        RowError: if it is neither, or a level is not a number in [0, 1].
    """
    if isinstance(value, str):
        try:
            value = load_json(value) if value.strip() else None
        except ValueError:
            raise RowError(column, "it is not JSON", _REMEDY) from None
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise RowError(column, f"it is a {type(value).__name__}", _REMEDY)
    levels: dict[str, float] = {}
    for name, level in value.items():
        if not (isinstance(name, str) and name.strip()):
            raise RowError(column, f"{name!r:.80} is not the name of a category", _REMEDY)
        if level is not None and not (isinstance(level, int | float) and 0 <= level <= 1):
            raise RowError(column, f"the level of {name!r:.80} is {level!r:.80}", _REMEDY)
        if level:
            levels[name] = float(level)
    return json.dumps(levels, sort_keys=True, ensure_ascii=False)


def severity_harm(row: Row, number: int) -> str | None:
    """The harm of answer 0 or 1 in a row of PKU-SafeRLHF, as text: `SEVERITY_LEVELS` in every marked category.

    None if its categories are unknown; an unknown severity (in the sets that have none) counts as severe.

    Raises:
        RowError: if the severity is none of the four, or the categories can't be read.
    """
    category, column = f"response_{number}_harm_category", f"response_{number}_severity_level"
    marked, severity = row.get(category), row.get(column)
    if severity is not None and (isinstance(severity, bool) or severity not in range(len(SEVERITY_LEVELS))):
        raise RowError(column, f"{severity!r:.80} is not a severity", "write 0, 1, 2 or 3, or null where it is unknown")
    if marked is None:
        return None
    if not isinstance(marked, Mapping):
        raise RowError(category, f"{marked!r:.80} is not an object", 'write JSON such as {"theft": true}, or null')
    level = 1.0 if severity is None else SEVERITY_LEVELS[int(severity)]
    return harm_text({name: level for name, is_marked in marked.items() if is_marked}, category)


def harm_levels(text: str | None) -> dict[str, float] | None:
    """Levels by category from the text in a row; None if unknown."""
    return None if text is None else json.loads(text)


def with_harm(row: Row, harm: str | None, answer: str) -> Row:
    """A canonical pair with the harm of one answer, "chosen" or "rejected", and the flag that it defines.

    An answer is safe if and only if all its levels are 0, so a missing flag follows from them.
    """
    if harm is None:
        return row
    flag = row[f"{answer}_is_safe"]
    return row | {f"{answer}_harm": harm, f"{answer}_is_safe": float(harm == "{}") if flag is None else flag}


def harms_of(row: Row) -> list[str | None]:
    """The harm of a canonical row's answers, as text."""
    if is_pair(row):
        return [row.get(name) for name in HARM_COLUMNS["pairs"]]
    return row.get("harm") or [None] * len(row["is_safe"])


def only_category(names: str | list[str] | None) -> str:
    """The only category in a row's ``category``; the empty string if it has none or several."""
    listed = as_list(names)
    return (listed[0] or "") if len(listed) == 1 else ""


def marked_categories(category: Any) -> Any:
    """The names that an object of booleans marks, as BeaverTails has them; anything else as it is."""
    if isinstance(category, dict) and all(isinstance(mark, bool) for mark in category.values()):
        return [str(name) for name, mark in category.items() if mark] or None
    return category


def categories_of(row: Row) -> set[str]:
    """Harm categories of a row: of its answers, and of its column ``category``."""
    own = {name for name in as_list(row.get("category")) if name}
    return own.union(*(harm_levels(text) or {} for text in harms_of(row)))


@dataclass(frozen=True)
class HarmPrices:
    """Price b_c of each harm category: the help that harm of level 1 is worth, in units of the label.

    Attributes:
        default: price of categories without their own, and of harm whose categories are unknown; b3 = 1/(b1 - 1)
            if there are no prices.
        prices: price by category.

    Raises:
        BfpoError: if a price is negative or not finite.
    """

    default: float
    prices: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, price in [("default", self.default), *self.prices.items()]:
            if not (math.isfinite(price) and price >= 0):
                raise BfpoError(f"the price of {name!r} is {price}: it must be a finite number, at least 0")

    def price(self, category: str) -> float:
        """The price of a category."""
        return self.prices.get(category, self.default)

    def cost(self, harm: Mapping[str, float] | None, is_safe: float | None, category: str = "") -> float | None:
        """The sum of b_c u_c of an answer.

        Args:
            harm: levels u_c by category; if unknown, the level of ``category`` is 1 - s.
            is_safe: flag or probability s that the answer is safe.
            category: category of the row; "" if it has none, or several.

        Returns:
            The cost, or None if neither harm nor safety is known.
        """
        if harm is not None:
            return math.fsum(self.price(name) * level for name, level in harm.items())
        return None if is_safe is None else self.price(category) * (1 - is_safe)


def with_costs(rows: datasets.Dataset, prices: HarmPrices) -> tuple[datasets.Dataset, dict[str, int]]:
    """Rows with the column ``cost``, the cost of each answer, and the number of answers with harm of each category.

    Answers of unknown category that are not certainly safe are counted under `UNKNOWN_CATEGORY`.
    """
    costs: list[list[float | None]] = []
    counts: Counter[str] = Counter()
    for row in _labels(rows):
        category = only_category(row.get("category"))
        flags = flags_of(row)
        levels = [harm_levels(text) for text in harms_of(row)]
        costs.append([prices.cost(harm, flag, category) for harm, flag in zip(levels, flags, strict=True)])
        for harm, flag in zip(levels, flags, strict=True):
            unlisted = [category or UNKNOWN_CATEGORY] if flag is not None and flag != 1 else []
            counts.update(unlisted if harm is None else list(harm))
    priced = rows.add_column("cost", costs)  # pyright: ignore
    return priced, dict(sorted(counts.items()))


def without_harm(rows: datasets.Dataset) -> datasets.Dataset:
    """Rows without the harm of their answers."""
    return rows.remove_columns([name for name in _all_columns() if name in rows.column_names])


def _labels(rows: datasets.Dataset) -> Iterable[Row]:
    """The labels of rows, without their texts."""
    wanted = ("chosen_is_safe", "rejected_is_safe", "is_safe", "category", *_all_columns())
    return rows.select_columns([name for name in wanted if name in rows.column_names])  # pyright: ignore


def _all_columns() -> list[str]:
    return [name for names in HARM_COLUMNS.values() for name in names]
