"""Pairs of one prompt as one group, so that the prompt goes through the model once for all of its answers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bfpo.errors import BfpoError
from bfpo.preferences.answers import is_pair
from bfpo.preferences.reading import Row

if TYPE_CHECKING:
    import datasets

# Columns with a value for each answer: those of groups, and of a pair's two answers.
_OF_ANSWERS: Mapping[str, tuple[str, str]] = {
    "is_safe": ("chosen_is_safe", "rejected_is_safe"),
    "reward": ("chosen_reward", "rejected_reward"),
    "truncated": ("chosen_truncated", "rejected_truncated"),
}
# Pairs stay apart if they differ in one of these: a group has a single value of each.
_OF_GROUPS = ("tools", "weight")


@dataclass(frozen=True)
class GroupingCounts:
    """Counts of grouped pairs.

    Attributes:
        pairs: number of pairs.
        groups: number of groups that they became.
        answers: number of answers in them; the pairs had twice as many answers as pairs.
        largest: number of answers in the largest group.
        averaged: number of answers whose pairs gave them different flags, rewards or costs, which were averaged.
    """

    pairs: int
    groups: int
    answers: int
    largest: int
    averaged: int


def group_by_prompt(rows: datasets.Dataset) -> tuple[datasets.Dataset, GroupingCounts]:
    """Rows with K answers and the pairs among them, one for each prompt.

    Identical answers to a prompt become one. Where the pairs give it different flags (or rewards), it has the mean of
    those that are known. The weight of a group is its number of pairs times their weight; `with_equal_pairs` scales it.
    The mean loss over all rows is then that over the pairs, if the objective's loss is a mean over pairs (KTO's isn't),
    equal answers have equal labels, and ``level`` is 0. Pairs with different tools or weights stay apart.

    Args:
        rows: pairs of `load_preferences`.

    Returns:
        Rows with ``responses``, ``is_safe``, the pairs ``first``, ``second`` (answer indices) and ``first_is_better``,
        ``weight``, and ``row`` of the first pair.

    Raises:
        BfpoError: if the rows are not pairs.
    """
    import datasets

    if not is_pair(rows.column_names):
        raise BfpoError("only pairs can be grouped by prompt, but these rows have K answers; remove 'group_by_prompt'")
    members: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        key = [row["prompt"], *(row.get(name) for name in _OF_GROUPS)]  # pyright: ignore
        members[json.dumps(key)].append(dict(row))  # pyright: ignore
    columns = [name for name, pair in _OF_ANSWERS.items() if pair[0] in rows.column_names]
    columns += ["cost"] if "cost" in rows.column_names else []
    groups, averaged = [], 0
    for pairs in members.values():
        group, differing = _grouped(pairs, columns)
        groups.append(group)
        averaged += differing
    sizes = [len(group["responses"]) for group in groups]
    counts = GroupingCounts(len(rows), len(groups), sum(sizes), max(sizes, default=0), averaged)
    return datasets.Dataset.from_list(groups), counts


def with_equal_pairs(sources: Sequence[datasets.Dataset]) -> list[datasets.Dataset]:
    """Rows of several sources whose weights add up to their number, if every pair's own weight is 1.

    Groups of `group_by_prompt` count as often as they have pairs and all other rows once, so all weights are multiplied
    by the number of rows in all sources over that of pairs. Sources without such groups among them stay as they are.
    """
    import datasets

    if not any("first" in rows.column_names for rows in sources):
        return list(sources)
    pairs = sum(sum(map(len, rows["first"])) if "first" in rows.column_names else len(rows) for rows in sources)
    factor = sum(map(len, sources)) / pairs
    scaled: list[datasets.Dataset] = []
    for rows in sources:
        has_weight = "weight" in rows.column_names
        given: Any = rows["weight"] if has_weight else [None] * len(rows)
        weights = [factor * (1.0 if weight is None else weight) for weight in given]
        rest = rows.remove_columns("weight") if has_weight else rows
        scaled.append(rest.add_column("weight", weights, feature=datasets.Value("float64")))  # pyright: ignore
    return scaled


def _grouped(pairs: Sequence[Row], columns: Sequence[str]) -> tuple[Row, int]:
    """One group of these pairs, weighted by their number, and how many of its answers have averaged values."""
    places: dict[str, int] = {}
    answers: list[Any] = []
    values: dict[str, list[list[Any]]] = {name: [] for name in columns}
    sides: tuple[list[int], list[int]] = ([], [])
    for pair in pairs:
        for side, column in enumerate(("chosen", "rejected")):
            place = places.setdefault(json.dumps(pair[column]), len(places))
            if place == len(answers):
                answers.append(pair[column])
                for found in values.values():
                    found.append([])
            sides[side].append(place)
            for name, found in values.items():
                found[place].append(pair["cost"][side] if name == "cost" else pair[_OF_ANSWERS[name][side]])
    differing = sum(any(len(set(found[place])) > 1 for found in values.values()) for place in range(len(answers)))
    weight = pairs[0].get("weight")
    group = {
        "prompt": pairs[0]["prompt"],
        "responses": answers,
        "helpfulness": None,
        "first": sides[0],
        "second": sides[1],
        "first_is_better": [float(pair["chosen_is_better"]) for pair in pairs],
        "row": pairs[0]["row"],
        **{name: pairs[0][name] for name in _OF_GROUPS if name in pairs[0]},
        "weight": (1.0 if weight is None else weight) * len(pairs),
    }
    return group | {name: [_mean(one) for one in found] for name, found in values.items()}, differing


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
