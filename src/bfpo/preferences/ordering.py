"""Orders by safety, for methods that use a single preference, and the choice of answers for SFT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bfpo.errors import BfpoError
from bfpo.preferences.schema import OPTIONAL_COLUMNS

if TYPE_CHECKING:
    import datasets

Order = Literal["helpful", "safer", "safer_then_helpful"]


@dataclass(frozen=True)
class OrderingCounts:
    """Counts of pairs that kept their order, swapped answers, or were dropped because their flags are equal."""

    kept: int
    turned: int
    skipped_equal: int


def order_by(rows: datasets.Dataset, order: Order) -> tuple[datasets.Dataset, OrderingCounts]:
    """Reorder pairs so that ``chosen`` is the better answer by ``order``.

    "safer" puts the safer answer first by the flags and drops pairs with equal flags; "safer_then_helpful" keeps
    those in order of helpfulness. A pair decided by safety gets ``chosen_is_better`` 1. Probabilities count as the
    nearer flag.

    Raises:
        BfpoError: if the rows are not pairs, or a flag is unknown.
    """
    if "chosen" not in rows.column_names:
        raise BfpoError(f"only pairs can be ordered as {order!r}, but these rows have K answers; use 'prefer: helpful'")
    if order == "helpful":
        return rows, OrderingCounts(len(rows), 0, 0)
    flags: Any = rows.select_columns(["chosen_is_safe", "rejected_is_safe", "row"])
    safe = [_is_safe(row) for row in flags]
    decided = [chosen != rejected for chosen, rejected in safe]
    turned = {at for at, (chosen, rejected) in enumerate(safe) if rejected and not chosen}
    ordered = rows.map(lambda row, at: _decided(row, at in turned) if decided[at] else row, with_indices=True)
    equal = decided.count(False)
    if order == "safer":
        ordered = ordered.select([at for at, known in enumerate(decided) if known])
        return ordered, OrderingCounts(len(ordered) - len(turned), len(turned), equal)
    return ordered, OrderingCounts(len(ordered) - len(turned), len(turned), 0)


def preferred_answers(rows: datasets.Dataset, order: Order) -> datasets.Dataset:
    """Rows with one answer each, for SFT: the more helpful or the safer answer of each pair.

    The safer answer is the source's own choice if it has one (PKU-SafeRLHF's ``safer_response_id``), otherwise the
    one with the safe flag, and with equal flags the more helpful one.
    """
    if "chosen" not in rows.column_names:
        return rows
    kept = ("prompt", "row", *OPTIONAL_COLUMNS)
    return rows.map(
        lambda row: _single(row, take_rejected=order != "helpful" and _rejected_is_safer(row)),
        remove_columns=[name for name in rows.column_names if name not in kept],
    )


def swapped(row: dict[str, Any], chosen_is_better: float) -> dict[str, Any]:
    """The pair with its answers swapped; ``chosen_is_better`` belongs to the old order."""
    safer, by, judged = (row.get(name) for name in ("chosen_is_safer", "labelled_by", "judged_as"))
    names = {"labelled_by": {**by, "chosen": by["rejected"], "rejected": by["chosen"]}} if by else {}
    if judged:
        turned = {"chosen": judged.get("rejected"), "rejected": judged.get("chosen")}
        order = {name: None if p is None else 1 - p for name, p in (judged.get("order") or {}).items()}
        names["judged_as"] = turned | ({"order": order} if order else {})
    return row | {
        "chosen": row["rejected"],
        "rejected": row["chosen"],
        "chosen_is_safe": row["rejected_is_safe"],
        "rejected_is_safe": row["chosen_is_safe"],
        "chosen_is_better": 1 - chosen_is_better,
        "chosen_is_safer": None if safer is None else 1 - safer,
        **names,
    }


def _is_safe(row: dict[str, Any]) -> tuple[bool, bool]:
    flags = row["chosen_is_safe"], row["rejected_is_safe"]
    if None in flags:
        raise BfpoError(f"row {row['row']} can't be ordered by safety: the safety of an answer is unknown")
    return flags[0] >= 0.5, flags[1] >= 0.5


def _decided(row: dict[str, Any], turn: bool) -> dict[str, Any]:
    row = swapped(row, 0.0) if turn else row
    return row | {"chosen_is_better": 1.0, "chosen_is_safer": 1.0}


def _rejected_is_safer(row: dict[str, Any]) -> bool:
    if row["chosen_is_safer"] is not None:
        return row["chosen_is_safer"] < 0.5
    chosen, rejected = _is_safe(row)
    return rejected and not chosen


def _single(row: dict[str, Any], take_rejected: bool) -> dict[str, Any]:
    name = "rejected" if take_rejected else "chosen"
    return {
        "prompt": row["prompt"],
        "responses": [row[name]],
        "helpfulness": None,
        "is_safe": [row[f"{name}_is_safe"]],
        "row": row["row"],
    }
