"""Filling in of the order of helpfulness by a judge, and its error on people's orders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bfpo.judges.exchanges import exchange_of
from bfpo.judges.preference import AnswerPair, HelpfulnessJudge, Preference
from bfpo.labeling.people_sample import sample_with_words
from bfpo.labeling.stored import stored_rows
from bfpo.preferences.label_columns import JUDGE, UNKNOWN, judged_order, order_source
from bfpo.preferences.ordering import swapped
from bfpo.preferences.reading import Row
from bfpo.statistics.intervals import Estimate, rate_interval

_CHOSEN_WINS = {"first": 1.0, "tie": 0.5, "second": 0.0}


@dataclass(frozen=True)
class OrderedRows:
    """Rows with their orders.

    Attributes:
        rows: the rows; ``judged_as`` holds the judge's word on the order.
        sources: number of pairs by the source of their order.
        error: share of people's orders that the judge gets wrong; None without a sample, or a judge.
        turned: number of pairs that were swapped because the judge prefers the second answer.
    """

    rows: Sequence[Row]
    sources: Counter[str]
    error: Estimate | None
    turned: int


def fill_orders(
    rows: Iterable[Row],
    judge: HelpfulnessJudge | None,
    folder: Path | None = None,
) -> OrderedRows:
    """Fill in the orders that are open or an earlier judge's, as verdicts: 1, or 1/2 for a tie; K answers stay.

    If there are such pairs, the judge also compares those that people ordered, which shows its error; all pairs are
    then in memory. Without a judge, orders stay open. The result is in a temporary file in the folder, if one is given.
    """
    if judge is None:
        sources = Counter[str]()
        return OrderedRows(stored_rows(_noted_sources(rows, sources), folder), sources, None, 0)
    kept = stored_rows(rows, folder)
    names = [order_source(row) if "chosen" in row else "" for row in kept]
    is_open = [name in (JUDGE, UNKNOWN) for name in names]
    pairs = [row for row, name in zip(kept, names, strict=True) if name] if any(is_open) else []
    if not pairs:
        return fill_orders(kept, None, folder)
    exchanges = [(exchange_of(row, 0), exchange_of(row, 1)) for row in pairs]
    asked = [AnswerPair(first.prompt, first.answer, second.answer) for first, second in exchanges]
    preferences = iter(judge.compare(asked))
    ordered: list[Row] = []
    turned = 0
    for one, name, was_open in zip(kept, names, is_open, strict=True):
        row: Row = dict(one)
        word = None
        if name:
            word = _word(next(preferences))
            row |= _noted(row, word)
        if was_open:
            name, verdict = (JUDGE, word["verdict"]) if word else (UNKNOWN, None)
            turned += verdict == 0
            row["chosen_is_better"] = verdict
            row = swapped(row, 0.0) if verdict == 0 else row
            row["labelled_by"] = row["labelled_by"] | {"order": name}
        ordered.append(row)
    sources = Counter[str]()
    return OrderedRows(stored_rows(_noted_sources(ordered, sources), folder), sources, _order_error(ordered), turned)


def _noted_sources(rows: Iterable[Row], sources: Counter[str]) -> Iterator[Row]:
    """The rows with the source of their order, which is counted."""
    for row in rows:
        if "chosen" not in row:
            yield row
            continue
        name = order_source(row)
        sources[name] += 1
        yield row | {"labelled_by": row["labelled_by"] | {"order": name}}


def _word(preference: Preference) -> dict[str, float] | None:
    """A judge's word on ``chosen``; None if it couldn't be read."""
    if preference.choice == "unparsed" or preference.p_first is None:
        return None
    return {"verdict": _CHOSEN_WINS[preference.choice], "probability": preference.p_first}


def _noted(row: Row, word: dict[str, float] | None) -> Row:
    """The row's ``judged_as`` with this word on the order, or without any if it couldn't be read."""
    judged = row.get("judged_as") or {"chosen": None, "rejected": None}
    if word:
        return {"judged_as": judged | {"order": word}}
    rest = {name: own for name, own in judged.items() if name != "order"}
    return {"judged_as": rest} if "judged_as" in row else {}


def _order_error(rows: Sequence[Row]) -> Estimate | None:
    pairs = [row for row in rows if "chosen" in row]
    verdicts = [judged_order(row).get("verdict") for row in pairs]
    has_word = np.array([verdict is not None for verdict in verdicts])
    sample = sample_with_words([order_source(row) for row in pairs], has_word, lambda part: float(part.sum()))
    if sample is None:
        return None
    inside: list[int] = np.flatnonzero(sample.inside).tolist()
    wrong = [abs((verdicts[at] or 0.0) - pairs[at]["chosen_is_better"]) for at in inside]
    return rate_interval(wrong, [repr(pairs[at]["prompt"]) for at in inside])
