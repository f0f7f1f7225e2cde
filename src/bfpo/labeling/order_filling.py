"""Filling in of the order of helpfulness by a judge, and its error on people's orders."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bfpo.judges.cache import VerdictCache
from bfpo.judges.exchanges import exchange_of
from bfpo.judges.preference import AnswerPair, HelpfulnessJudge, Preference
from bfpo.judges.streaming import preferences
from bfpo.labeling.people_sample import decided_pairs, sample_with_words
from bfpo.labeling.stored import stored_rows, text_digest
from bfpo.preferences.answers import is_pair
from bfpo.preferences.label_columns import JUDGE, UNKNOWN, order_source
from bfpo.preferences.ordering import swapped
from bfpo.preferences.reading import Row
from bfpo.statistics.flag_channel import order_error
from bfpo.statistics.intervals import Estimate

_CHOSEN_WINS = {"first": 1.0, "tie": 0.5, "second": 0.0}


@dataclass(frozen=True)
class OrderedRows:
    """Rows with their orders.

    Attributes:
        rows: the rows; ``judged_as`` holds the judge's word on the order.
        sources: number of pairs by the source of their order.
        error: share of people's orders that the judge gets wrong; None without a sample, or a judge.
        turned: number of pairs that were swapped because the judge prefers the second answer.
        unparsed: number of pairs of which no preference could be read.
    """

    rows: Sequence[Row]
    sources: Counter[str]
    error: Estimate | None
    turned: int
    unparsed: int = 0


def fill_orders(
    rows: Iterable[Row],
    judge: HelpfulnessJudge | None,
    cache: VerdictCache | None = None,
    folder: Path | None = None,
) -> OrderedRows:
    """Fill in the orders that are open or an earlier judge's, as verdicts: 1, or 1/2 for a tie; K answers stay.

    If there are such pairs, the judge also compares those that people ordered, which shows its error. Without a judge,
    orders stay open. Rows are in temporary files in the folder, if one is given; of each pair, only numbers are in
    memory.
    """
    if judge is None:
        sources = Counter[str]()
        return OrderedRows(stored_rows(_noted_sources(rows, sources), folder), sources, None, 0)
    kept = stored_rows(rows, folder)
    if not has_open_order(kept):
        return fill_orders(kept, None, folder=folder)
    pairs = _JudgedPairs()
    ordered = stored_rows(_ordered(kept, preferences(judge, answer_pairs(kept), cache), pairs), folder)
    unparsed = int(np.isnan(pairs.verdicts).sum())
    return OrderedRows(ordered, Counter(pairs.names), pairs.error(), pairs.turned, unparsed)


def has_open_order(rows: Iterable[Row]) -> bool:
    """Whether a judge is to order any pair: its order is open, or an earlier judge's."""
    return any(_is_open(order_source(row)) for row in rows if is_pair(row))


def answer_pairs(rows: Iterable[Row]) -> Iterator[AnswerPair]:
    """The answers of all pairs, for a judge of helpfulness."""
    for row in rows:
        if is_pair(row):
            first, second = exchange_of(row, 0), exchange_of(row, 1)
            yield AnswerPair(first.prompt, first.answer, second.answer)


def _is_open(source: str) -> bool:
    return source in (JUDGE, UNKNOWN)


@dataclass
class _JudgedPairs:
    """What is known of [P] pairs that a judge has compared.

    Attributes:
        names: [P] source of each order.
        orders: [P] people's orders; NaN without one.
        verdicts: [P] the judge's verdicts on ``chosen``; NaN without one.
        prompts: [P] digest of each prompt.
        turned: number of pairs that were swapped.
    """

    names: list[str] = field(default_factory=list)
    orders: array[float] = field(default_factory=lambda: array("d"))
    verdicts: array[float] = field(default_factory=lambda: array("d"))
    prompts: array[int] = field(default_factory=lambda: array("Q"))
    turned: int = 0

    def add(self, row: Row, name: str, word: Mapping[str, float] | None) -> None:
        """Note a pair with its order, the source of the order, and the judge's word."""
        self.names.append(name)
        self.orders.append(math.nan if _is_open(name) else row["chosen_is_better"])
        self.verdicts.append(word["verdict"] if word else math.nan)
        self.prompts.append(text_digest(repr(row["prompt"])))

    def error(self) -> Estimate | None:
        """Share of people's orders that the judge gets wrong, on a sample of them; None if there are too few."""
        orders, verdicts = np.asarray(self.orders), np.asarray(self.verdicts)
        sample = sample_with_words(self.names, ~np.isnan(orders + verdicts), decided_pairs(orders))
        if sample is None:
            return None
        inside = np.flatnonzero(sample.inside)
        return order_error(verdicts[inside], orders[inside], clusters=np.asarray(self.prompts)[inside].tolist())


def _ordered(rows: Iterable[Row], given: Iterator[Preference], pairs: _JudgedPairs) -> Iterator[Row]:
    """The rows with the judge's words; open orders are filled in."""
    for one in rows:
        if not is_pair(one):
            yield one
            continue
        row, name, word = dict(one), order_source(one), _word(next(given))
        row |= _noted(row, word)
        if _is_open(name):
            name, verdict = (JUDGE, word["verdict"]) if word else (UNKNOWN, None)
            pairs.turned += verdict == 0
            row["chosen_is_better"] = verdict
            row = swapped(row, 0.0) if verdict == 0 else row
        pairs.add(row, name, word)
        yield row | {"labelled_by": row["labelled_by"] | {"order": name}}
    # A judge without a single preference is an error at the end.
    next(given, None)


def _noted_sources(rows: Iterable[Row], sources: Counter[str]) -> Iterator[Row]:
    """The rows with the source of their order, which is counted."""
    for row in rows:
        if not is_pair(row):
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
