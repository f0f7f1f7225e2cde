"""The queue of rows for people: a random part, and the others by the expected change of their labels."""

from __future__ import annotations

import math
import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from bfpo.labeling.stored import text_digest
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.preferences.answers import ASKED_OF_PAIR, answer_names, flags_of, is_pair, with_flags
from bfpo.preferences.encoding import labels_of
from bfpo.preferences.label_columns import (
    HUMAN,
    PEOPLE,
    RANDOM,
    flag_sources,
    judged_flags,
    judged_order,
    order_source,
)
from bfpo.preferences.messages import rendered
from bfpo.preferences.ordering import swapped
from bfpo.preferences.reading import Row

# Rows whose values are computed at once.
_AT_ONCE = 1000


def queue_for_people(
    rows: Sequence[Row],
    labeling: GlobalPreference,
    prior: float | None = None,
    *,
    random_share: float = 0.0,
    seed: int = 0,
) -> Iterator[Row]:
    """The rows that people have not labeled in full: the most valuable first, and among them a random part.

    A person's answer replaces the label's expectation G by T. Their mean squared distance is the variance of T under
    the calibrated probabilities of the flags and the order, taken as independent, which is what uncertain labels add to
    the regression loss. Rows with the same prompt are largely redundant: the value of the k-th is divided by k. A
    single answer, which has no T, has the variance of its flag.

    The random part is drawn from all rows that didn't come with people's labels in full, also from those that people
    labeled in earlier rounds: rounds together are then one random sample, although each round's most valuable rows are
    taken out of the next.

    Args:
        rows: rows of `label_preferences`; of each, some numbers are in memory.
        labeling: labeling function for training.
        prior: probability of safe for an unknown flag; 1/2 by default.
        random_share: share of the rows to ask that are drawn at random.
        seed: random seed for the draws.

    Returns:
        The rows with ``asks``, the names of the open labels ("order", or the answer's) without a value; ``value``;
        ``placed``, whether by "value" or as part of the "random" sample; and ``draw``, the place in the order of the
        draws (null: not drawn). A row that people have labeled may be drawn: it asks nothing. What judges say of a row
        is left out.
    """
    ranking = _Ranking(rows, labeling, 0.5 if prior is None else prior)
    random = np.random.default_rng([seed, ranking.earlier])
    drawn = random.permutation(ranking.drawable) if random_share else ranking.drawable[:0]
    places = _Places(len(rows))
    by_value, at_random = ranking.by_value(), _draws(drawn, places, ranking.asks)
    for asked in range(int(ranking.asks.sum())):
        is_random = math.floor((asked + 1) * random_share) > math.floor(asked * random_share)
        found = next(at_random, None) if is_random else None
        if found is None:
            found = next((at for at in by_value if not places.how[at]), None)
            if found is None:
                break
            places.put(found, "value")
    values = ranking.values()
    return (_queued(rows[at], float(values[at]), *places.of(at)) for at in places.order)


class _Ranking:
    """The rows that may be drawn, by the value of asking about them; SQLite sorts them outside memory.

    The value is divided by k for the k-th most valuable row with the same prompt.

    Attributes:
        drawable: indices of the rows that may be drawn.
        asks: [N] whether a row asks anything.
        earlier: number of rows that were drawn before.
    """

    def __init__(self, rows: Sequence[Row], labeling: GlobalPreference, unknown: float) -> None:
        # Without a name, the database is a temporary file.
        self._database = sqlite3.connect("")
        self._database.execute("CREATE TABLE given (at INTEGER, number INTEGER, prompt INTEGER, value REAL)")
        drawable, asks, self.earlier = array("i"), bytearray(), 0
        for start in range(0, len(rows), _AT_ONCE):
            chunk = rows[start : start + _AT_ONCE]
            values = target_variances(chunk, labeling, unknown)
            for at, (row, value) in enumerate(zip(chunk, values, strict=True), start):
                sources = _sources(row)
                asks.append(any(name not in HUMAN for name in sources))
                # A label of the queue becomes one of the random part when it is drawn: draws are counted by row.
                self.earlier += RANDOM in sources
                if any(name not in (PEOPLE, RANDOM) for name in sources):
                    drawable.append(at)
                    # SQLite's integers are signed.
                    prompt = text_digest(repr(row["prompt"])) - 2**63
                    given = (at, row["row"], prompt, float(value))
                    self._database.execute("INSERT INTO given VALUES (?, ?, ?, ?)", given)
        self.drawable, self.asks = np.asarray(drawable), np.frombuffer(asks, dtype=bool)
        self._database.execute(
            "CREATE TABLE ranked AS SELECT at, number, value / ROW_NUMBER() OVER "
            "(PARTITION BY prompt ORDER BY value DESC, at) AS value FROM given"
        )

    def by_value(self) -> Iterator[int]:
        """Indices of the rows that ask something, the most valuable first."""
        found = self._database.execute("SELECT at FROM ranked ORDER BY value DESC, number")
        return (at for (at,) in found if self.asks[at])

    def values(self) -> np.ndarray:
        """[N] values; 0 for rows that aren't drawable."""
        values = np.zeros(len(self.asks))
        for at, value in self._database.execute("SELECT at, value FROM ranked"):
            values[at] = value
        return values


class _Places:
    """Places in the queue: the order of the rows in it, and how each came there."""

    _HOW = ("", "value", "random")

    def __init__(self, rows: int) -> None:
        self.order = array("i")
        self.how = np.zeros(rows, dtype=np.uint8)
        self._draws = np.full(rows, -1, dtype=np.int32)

    def put(self, at: int, how: str, draw: int = -1) -> None:
        """Put a row at the end, or note more about one that is in the queue."""
        if not self.how[at]:
            self.order.append(at)
        self.how[at], self._draws[at] = self._HOW.index(how), draw

    def of(self, at: int) -> tuple[str, int | None]:
        """How a row came into the queue, and its draw."""
        return self._HOW[self.how[at]], None if self._draws[at] < 0 else int(self._draws[at])


def _draws(drawn: np.ndarray, places: _Places, asks: np.ndarray) -> Iterator[int]:
    """Yield the drawn rows that are newly placed as random; those placed or labeled before are drawn in passing."""
    for draw, at in enumerate(drawn):
        is_new = bool(asks[at]) and not places.how[at]
        places.put(at, "random" if is_new else "value", draw)
        if is_new:
            yield at


def _queued(row: Row, value: float, how: str, draw: int | None) -> Row:
    row = _in_an_order_of_its_own(row)
    return {"value": value, "placed": how, "draw": draw, "asks": dict.fromkeys(_asks(row)), **_blind(row)}


def random_rows(draws: Sequence[int | None], is_random: Sequence[int], is_answered: Sequence[int]) -> set[int]:
    """Places in a queue of [N] rows whose labels are a random sample: by draw, up to the first random row left open.

    A row that was in the queue anyway counts only if a random row drawn after it was answered, because whether it was
    asked depends on what it says.

    Args:
        draws: [N] the rows' ``draw`` (see `queue_for_people`).
        is_random: [N] whether a row was placed as part of the random sample.
        is_answered: [N] whether people answered all that a row asks.
    """
    drawn = [(draw, at) for at, draw in enumerate(draws) if draw is not None]
    sample: set[int] = set()
    waiting: set[int] = set()
    for _, at in sorted(drawn):
        if not is_answered[at]:
            break
        waiting.add(at)
        if is_random[at]:
            sample |= waiting
            waiting.clear()
    return sample


def target_variances(rows: Sequence[Row], labeling: GlobalPreference, unknown: float = 0.5) -> list[float]:
    """[N] variance of T under the probabilities of a row's flags and order, averaged over its pairs.

    Args:
        rows: [N] canonical rows; where a judge filled in a label, its calibrated probability in ``judged_as`` counts.
        labeling: labeling function.
        unknown: probability of safe for an unknown flag.
    """
    owners, firsts, seconds, better = [], [], [], []
    alone = np.zeros(len(rows))
    for at, row in enumerate(rows):
        safe = _beliefs(row, unknown)
        _, labels = labels_of(row | {"chosen_is_better": _order_belief(row)} if is_pair(row) else row)
        owners += [at] * len(labels["first"])
        firsts += [safe[index] for index in labels["first"]]
        seconds += [safe[index] for index in labels["second"]]
        # Tied scores are certain.
        better += labels["first_is_better"] if is_pair(row) else [1.0] * len(labels["first"])
        if not labels["first"]:
            alone[at] = np.mean([p * (1 - p) for p in safe])
    first, second, first_is_better = torch.tensor([firsts, seconds, better], dtype=torch.float64)
    variances = _variances(first, second, first_is_better, labeling)
    pairs = np.bincount(owners, minlength=len(rows))
    return list(alone + np.bincount(owners, variances.numpy(), len(rows)) / np.maximum(pairs, 1))


def _beliefs(row: Row, unknown: float) -> list[float]:
    """P(safe) of each answer: people's label, else the calibrated probability, else the flag."""
    beliefs: list[float] = []
    for flag, name, word in zip(flags_of(row), flag_sources(row), judged_flags(row), strict=True):
        probability = None if name in HUMAN else word.get("probability")
        found = flag if probability is None else probability
        beliefs.append(unknown if found is None else float(found))
    return beliefs


def _order_belief(row: Row) -> float:
    """P(chosen is the more helpful answer) of a pair; 1/2 if unknown."""
    probability = None if order_source(row) in HUMAN else judged_order(row).get("probability")
    found = row["chosen_is_better"] if probability is None else probability
    return 0.5 if found is None else float(found)


def _variances(first: Tensor, second: Tensor, better: Tensor, labeling: GlobalPreference) -> Tensor:
    """[P] variance of T over the eight outcomes of two flags and an order."""
    mean = labeling.target(first, second, better)
    square = torch.zeros_like(mean)
    for s, t, order in product((0.0, 1.0), repeat=3):
        chance = (first if s else 1 - first) * (second if t else 1 - second) * (better if order else 1 - better)
        square += chance * labeling.target(s, t, order) ** 2
    return (square - mean**2).clamp(min=0)


def _sources(row: Row) -> list[str]:
    return flag_sources(row) + ([order_source(row)] if is_pair(row) else [])


def _in_an_order_of_its_own(row: Row) -> Row:
    """A pair in an order that its texts alone decide, unless people gave one: a judge's would give its view away."""
    if not is_pair(row) or order_source(row) in HUMAN:
        return row
    if text_digest(rendered(row["chosen"])) <= text_digest(rendered(row["rejected"])):
        return row
    if row["chosen_is_better"] is None:
        return swapped(row, 0.5) | {"chosen_is_better": None}
    return swapped(row, row["chosen_is_better"])


def _blind(row: Row) -> Row:
    """The row without what judges say of it, which people should not see."""
    flags = [flag if name in HUMAN else None for flag, name in zip(flags_of(row), flag_sources(row), strict=True)]
    shown = with_flags({name: value for name, value in row.items() if name != "judged_as"}, flags)
    if is_pair(row) and order_source(row) not in HUMAN:
        shown["chosen_is_better"] = None
    return shown


def _asks(row: Row) -> tuple[str, ...]:
    """Names of the labels that people haven't given."""
    names = ASKED_OF_PAIR if is_pair(row) else answer_names(row)
    return tuple(name for name, source in zip(names, _sources(row), strict=True) if source not in HUMAN)
