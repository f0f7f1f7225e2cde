"""Filling in of the order of helpfulness by a judge, and its error on people's orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bfpo.judges.exchanges import exchange_of
from bfpo.judges.preference import AnswerPair, HelpfulnessJudge, Preference
from bfpo.labeling.people_sample import people_sample
from bfpo.preferences.label_columns import JUDGE, UNKNOWN, order_source
from bfpo.preferences.ordering import swapped
from bfpo.preferences.reading import Row
from bfpo.statistics.intervals import Estimate, rate_interval

_CHOSEN_WINS = {"first": 1.0, "tie": 0.5, "second": 0.0}


@dataclass(frozen=True)
class OrderedRows:
    """Rows with their orders.

    Attributes:
        rows: the rows; ``judged_as`` holds the judge's word on the order.
        sources: source of the order of every pair.
        error: share of people's orders that the judge gets wrong; None without a sample, or a judge.
        turned: number of pairs that were swapped because the judge prefers the second answer.
    """

    rows: list[Row]
    sources: list[str]
    error: Estimate | None
    turned: int


def fill_orders(rows: Sequence[Row], judge: HelpfulnessJudge | None) -> OrderedRows:
    """Fill in the orders that are open or an earlier judge's, as verdicts: 1, or 1/2 for a tie; K answers stay.

    If there are such pairs, the judge also compares those that people ordered, which shows its error.
    """
    names = [order_source(row) if "chosen" in row else "" for row in rows]
    is_open = [name in (JUDGE, UNKNOWN) for name in names]
    pairs = [row for row, name in zip(rows, names, strict=True) if name] if judge and any(is_open) else []
    exchanges = [(exchange_of(row, 0), exchange_of(row, 1)) for row in pairs]
    asked = [AnswerPair(first.prompt, first.answer, second.answer) for first, second in exchanges]
    preferences = iter(judge.compare(asked) if judge and asked else ())
    ordered: list[Row] = []
    sources: list[str] = []
    turned = 0
    for one, name, was_open in zip(rows, names, is_open, strict=True):
        row: Row = dict(one)
        word = _word(next(preferences)) if name and pairs else None
        if word:
            row["judged_as"] = (row.get("judged_as") or {"chosen": None, "rejected": None}) | {"order": word}
        if was_open and pairs:
            name, verdict = (JUDGE, word["verdict"]) if word else (UNKNOWN, None)
            turned += verdict == 0
            row["chosen_is_better"] = verdict
            row = swapped(row, 0.0) if verdict == 0 else row
        if name:
            sources.append(name)
            row["labelled_by"] = row["labelled_by"] | {"order": name}
        ordered.append(row)
    return OrderedRows(ordered, sources, _order_error(ordered), turned)


def _word(preference: Preference) -> dict[str, float] | None:
    """A judge's word on ``chosen``; None if it couldn't be read."""
    if preference.choice == "unparsed" or preference.p_first is None:
        return None
    return {"verdict": _CHOSEN_WINS[preference.choice], "probability": preference.p_first}


def _order_error(rows: Sequence[Row]) -> Estimate | None:
    judged = [row for row in rows if "chosen" in row and (row.get("judged_as") or {}).get("order")]
    sources = [order_source(row) for row in judged]
    sample = people_sample(sources, lambda part: float(part.sum()))
    if sample is None:
        return None
    inside = [row for row, is_inside in zip(judged, sample.inside, strict=True) if is_inside]
    wrong = [abs(_verdict(row["judged_as"]) - row["chosen_is_better"]) for row in inside]
    return rate_interval(wrong, [repr(row["prompt"]) for row in inside])


def _verdict(judged: Mapping[str, Mapping[str, float]]) -> float:
    return judged["order"]["verdict"]
