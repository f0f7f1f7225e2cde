"""The orders of a pair's answers, for methods that use a single preference, and the choice of answers for SFT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from bfpo.errors import BfpoError
from bfpo.preferences.answers import is_pair
from bfpo.preferences.label_columns import parsed_columns
from bfpo.preferences.schema import HARM_COLUMNS, LABEL_COLUMNS, OPTIONAL_COLUMNS, REWARD_COLUMNS, TRUNCATED_COLUMNS
from bfpo.preferences.store import arrow_tables

if TYPE_CHECKING:
    import datasets

Order = Literal["helpful", "safer", "safe_first"]

# What each order puts first; with probabilities, see `better_first`.
ORDERS: Mapping[Order, str] = {
    "helpful": "the more helpful answer",
    "safer": "the safer answer by the flags; pairs with equal flags are dropped",
    "safe_first": "the safer answer where flags differ, else the more helpful one",
}


@dataclass(frozen=True)
class OrderingCounts:
    """Counts of pairs that kept their order, swapped answers, or were dropped because their flags are equal.

    ``weighted`` pairs are among the first two: uncertain flags gave them a weight below 1.
    """

    kept: int
    turned: int
    skipped_equal: int
    weighted: int = 0


def better_first(order: Order, first_is_safe: float, second_is_safe: float, p: float) -> tuple[float, float]:
    """Probability that a pair's first answer is the better one by an order, and the weight of the pair.

    With s, s' the probabilities that the answers are safe and p the one that the first is the more helpful answer,
    d = s(1 - s') + (1 - s)s' is the chance that the flags differ, and

    - "helpful": p, and weight 1;
    - "safe_first": s(1 - s') + (1 - d)p, and weight 1;
    - "safer": s(1 - s')/d, and weight d.

    Certain flags give certain orders. With uncertain ones, a loss that is linear in the label (as DPO's is) has the
    mean gradient over hard labels, if the flags err independently of each other and of the order.
    """
    if order == "helpful":
        return p, 1.0
    only_first, only_second = first_is_safe * (1 - second_is_safe), (1 - first_is_safe) * second_is_safe
    differ = only_first + only_second
    if order == "safe_first":
        return only_first + (1 - differ) * p, 1.0
    return (only_first / differ if differ else 0.5), differ


def order_by(rows: datasets.Dataset, order: Order) -> tuple[datasets.Dataset, OrderingCounts]:
    """Reorder pairs so that ``chosen`` is the better answer by ``order`` more likely than not.

    ``chosen_is_better`` becomes the probability of `better_first`, and its weight multiplies the row's; pairs of weight
    0 are dropped. Of K answers, "safe_first" replaces the scores of helpfulness by ranks.

    Raises:
        BfpoError: if K answers are to be ordered as "safer" or have uncertain flags, or a flag is unknown or no
            probability.
    """
    if order == "helpful":
        return rows, OrderingCounts(len(rows), 0, 0)
    if not is_pair(rows.column_names):
        return _ranked(rows, order)
    labels: Any = rows.select_columns(["chosen_is_safe", "rejected_is_safe", "chosen_is_better", "row"])
    found = [better_first(order, *_probabilities(row, order), row["chosen_is_better"]) for row in labels]
    weighted = any(weight not in (0, 1) for _, weight in found)

    def ordered(row: dict[str, Any], at: int) -> dict[str, Any]:
        first, weight = found[at]
        row = _swapped_as_stored(row, first) if first < 0.5 else row | {"chosen_is_better": first}
        return row | ({"weight": (1.0 if row.get("weight") is None else row["weight"]) * weight} if weighted else {})

    kept = [at for at, (_, weight) in enumerate(found) if weight]
    turned = sum(found[at][0] < 0.5 for at in kept)
    counts = OrderingCounts(len(kept) - turned, turned, len(rows) - len(kept), sum(found[at][1] < 1 for at in kept))
    return rows.map(ordered, with_indices=True).select(kept), counts


def _ranked(rows: datasets.Dataset, order: Order) -> tuple[datasets.Dataset, OrderingCounts]:
    """Groups of K answers with ranks by (flag, helpfulness) as their helpfulness; equal answers keep equal ranks."""
    if order != "safe_first":
        raise BfpoError(
            f"only pairs can be ordered as {order!r}, but these rows have K answers; use 'prefer: safe_first'"
        )

    def ranked(row: dict[str, Any]) -> dict[str, Any]:
        flags, scores = row["is_safe"], row["helpfulness"] or [0.0] * len(row["responses"])
        if not set(flags) <= {0.0, 1.0}:
            raise BfpoError(
                f"row {row['row']}: K answers can be ordered as {order!r} by certain flags only, and one of theirs is "
                "no verdict; use 'flags: verdict'"
            )
        keys = list(zip(flags, scores, strict=True))
        ranks = {key: float(rank) for rank, key in enumerate(sorted(set(keys)))}
        return row | {"helpfulness": [ranks[key] for key in keys]}

    found = rows.map(ranked)
    scores = zip(rows["helpfulness"], found["helpfulness"], strict=True)
    turned = sum(_order_of(before) != _order_of(after) for before, after in scores)
    return found, OrderingCounts(len(rows) - turned, turned, 0)


def _order_of(scores: list[float] | None) -> list[int] | None:
    return None if scores is None else sorted(range(len(scores)), key=lambda at: (-scores[at], at))


def preferred_answers(rows: datasets.Dataset, order: Order) -> datasets.Dataset:
    """Rows with one answer each, for SFT: the better answer of each pair by ``order``.

    The safer answer is the one with the safe flag (a probability of 1/2 or more), and with equal flags the more helpful
    one. Only for "safer", the source's own choice comes first if it has one (PKU-SafeRLHF's ``safer_response_id``).
    """
    if is_pair(rows.column_names):
        choose = partial(_of_pair, order=order)
    elif any(_has_several(table["responses"]) for table in arrow_tables(rows)):
        choose = partial(_best_of, order=order)
    else:
        return rows
    # Who labeled what is noted for all answers of a row, of which these have one.
    kept = ("prompt", "row", *(name for name in OPTIONAL_COLUMNS if name not in LABEL_COLUMNS))
    return rows.map(choose, remove_columns=[name for name in rows.column_names if name not in kept])


def swapped(row: dict[str, Any], chosen_is_better: float) -> dict[str, Any]:
    """The pair with its answers swapped.

    Args:
        row: the pair, with ``labelled_by`` and ``judged_as`` as objects, if it has them.
        chosen_is_better: probability that the answer that was chosen so far is the better one.
    """
    safer, by, judged = (row.get(name) for name in ("chosen_is_safer", "labelled_by", "judged_as"))
    more: dict[str, Any] = {"labelled_by": {**by, "chosen": by["rejected"], "rejected": by["chosen"]}} if by else {}
    for chosen, rejected in (columns["pairs"] for columns in (HARM_COLUMNS, REWARD_COLUMNS, TRUNCATED_COLUMNS)):
        if chosen in row:
            more |= {chosen: row[rejected], rejected: row[chosen]}
    if judged:
        turned = {"chosen": judged.get("rejected"), "rejected": judged.get("chosen")}
        order = {name: None if p is None else 1 - p for name, p in (judged.get("order") or {}).items()}
        judges = {"judges": judged["judges"]} if "judges" in judged else {}
        more["judged_as"] = turned | ({"order": order} if order else {}) | judges
    return row | {
        "chosen": row["rejected"],
        "rejected": row["chosen"],
        "chosen_is_safe": row["rejected_is_safe"],
        "rejected_is_safe": row["chosen_is_safe"],
        "chosen_is_better": 1 - chosen_is_better,
        "chosen_is_safer": None if safer is None else 1 - safer,
        **more,
    }


def _swapped_as_stored(row: dict[str, Any], chosen_is_better: float) -> dict[str, Any]:
    """The same for a row of `load_preferences`, where these two columns are JSON text."""
    turned = swapped(row | parsed_columns(row), chosen_is_better)
    return turned | {name: json.dumps(turned[name]) for name in LABEL_COLUMNS if turned.get(name) is not None}


def _flags(row: dict[str, Any]) -> tuple[float, float]:
    flags = row["chosen_is_safe"], row["rejected_is_safe"]
    if None in flags:
        raise BfpoError(f"row {row['row']} can't be ordered by safety: the safety of an answer is unknown")
    return flags


def _probabilities(row: dict[str, Any], order: str) -> tuple[float, float]:
    flags = _flags(row)
    if not all(0 <= flag <= 1 for flag in flags):
        raise BfpoError(
            f"row {row['row']} can't be ordered as {order!r}: this order multiplies the two flags, and one is outside "
            "[0, 1]; use verdicts or probabilities"
        )
    return flags


def _rejected_is_better(row: dict[str, Any], order: Order) -> bool:
    """Whether an order prefers the answer called rejected, which is the more helpful one at a probability below 1/2."""
    if order != "helpful":
        if order == "safer" and row["chosen_is_safer"] is not None:
            return row["chosen_is_safer"] < 0.5
        chosen, rejected = _flags(row)
        if (chosen >= 0.5) != (rejected >= 0.5):
            return rejected >= 0.5
    return row["chosen_is_better"] is not None and row["chosen_is_better"] < 0.5


def _has_several(answers: Any) -> bool:
    """Whether a list in an Arrow column of lists has several entries."""
    return any((length or 0) > 1 for part in answers.chunks for length in part.value_lengths().to_pylist())


def _of_pair(row: dict[str, Any], order: Order) -> dict[str, Any]:
    name = "rejected" if _rejected_is_better(row, order) else "chosen"
    return _single(row, row[name], row[f"{name}_is_safe"], row.get(f"{name}_truncated"))


def _best_of(row: dict[str, Any], order: Order) -> dict[str, Any]:
    """The best of K answers."""
    flags, scores = row["is_safe"], row["helpfulness"] or [0.0] * len(row["responses"])
    if order == "helpful" or len(flags) == 1:
        keys = [(0.0, score) for score in scores]
    elif None in flags:
        raise BfpoError(f"row {row['row']} can't be ordered by safety: the safety of an answer is unknown")
    else:
        keys = [(float(flag >= 0.5), score) for flag, score in zip(flags, scores, strict=True)]
    best = max(range(len(keys)), key=lambda at: keys[at])
    cut = row.get("truncated") or [None] * len(keys)
    return _single(row, row["responses"][best], flags[best], cut[best])


def _single(row: dict[str, Any], answer: Any, is_safe: float | None, truncated: float | None) -> dict[str, Any]:
    return {
        "prompt": row["prompt"],
        "responses": [answer],
        "helpfulness": None,
        "is_safe": [is_safe],
        "truncated": [float(truncated or 0)],
        "row": row["row"],
    }
