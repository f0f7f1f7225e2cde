"""The queue of rows for people, ordered by the expected change of their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from bfpo.objectives.bfpo import GlobalPreference
from bfpo.preferences.encoding import labels_of
from bfpo.preferences.label_sources import PEOPLE
from bfpo.preferences.reading import Row


def queue_for_people(rows: Sequence[Row], labeling: GlobalPreference, prior: float | None = None) -> list[Row]:
    """The rows that people have not labeled in full, most valuable first.

    A person's answer replaces the label's expectation G by T. Their mean squared distance is the variance of T under
    the probabilities of the flags and the order, taken as independent, which is what uncertain labels add to the
    regression loss. Rows with the same prompt are largely redundant: the value of the k-th is divided by k.

    Args:
        rows: rows of `label_preferences`.
        labeling: labeling function for training.
        prior: probability of safe for an unknown flag; 1/2 by default.

    Returns:
        The rows with their ``value``, and ``asks``, the names of the open labels ("order", or the answer's) without a
        value.
    """
    open_rows = [row for row in rows if _asks(row)]
    values = target_variances(open_rows, labeling, 0.5 if prior is None else prior)
    seen: Counter[str] = Counter()
    queued: list[Row] = []
    for at in sorted(range(len(open_rows)), key=lambda at: -values[at]):
        row, prompt = open_rows[at], repr(open_rows[at]["prompt"])
        seen[prompt] += 1
        queued.append({"value": values[at] / seen[prompt], "asks": dict.fromkeys(_asks(row)), **row})
    return sorted(queued, key=lambda row: (-row["value"], row["row"]))


def target_variances(rows: Sequence[Row], labeling: GlobalPreference, unknown: float = 0.5) -> list[float]:
    """[N] variance of T under the probabilities of a row's flags and order, averaged over its pairs.

    Args:
        rows: [N] canonical rows.
        labeling: labeling function.
        unknown: probability of safe for an unknown flag.
    """
    owners, firsts, seconds, better = [], [], [], []
    for at, row in enumerate(rows):
        is_pair = "chosen" in row
        _, labels = labels_of(row | {"chosen_is_better": 0.5} if is_pair and row["chosen_is_better"] is None else row)
        safe = [unknown if flag is None else flag for flag in labels["is_safe"]]
        owners += [at] * len(labels["first"])
        firsts += [safe[index] for index in labels["first"]]
        seconds += [safe[index] for index in labels["second"]]
        # Tied scores are certain.
        better += labels["first_is_better"] if is_pair else [1.0] * len(labels["first"])
    first, second, first_is_better = torch.tensor([firsts, seconds, better], dtype=torch.float64)
    variances = _variances(first, second, first_is_better, labeling)
    pairs = np.bincount(owners, minlength=len(rows))
    return list(np.bincount(owners, variances.numpy(), len(rows)) / np.maximum(pairs, 1))


def _variances(first: Tensor, second: Tensor, better: Tensor, labeling: GlobalPreference) -> Tensor:
    """[P] variance of T over the eight outcomes of two flags and an order."""
    mean = labeling.target(first, second, better)
    square = torch.zeros_like(mean)
    for s, t, order in product((0.0, 1.0), repeat=3):
        chance = (first if s else 1 - first) * (second if t else 1 - second) * (better if order else 1 - better)
        square += chance * labeling.target(s, t, order) ** 2
    return (square - mean**2).clamp(min=0)


def _asks(row: Row) -> tuple[str, ...]:
    by = row["labelled_by"]
    if "chosen" in row:
        return tuple(name for name in ("chosen", "rejected", "order") if by[name] != PEOPLE)
    return tuple(str(number) for number, name in enumerate(by["answers"]) if name != PEOPLE)
