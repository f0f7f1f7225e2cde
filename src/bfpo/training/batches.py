"""Batches: token groups, labels and reference log-probabilities from encoded rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import datasets
import numpy as np
import torch
from torch import Tensor

from bfpo.engine.layout import stream_tokens
from bfpo.groups import GroupLabels, TokenGroup
from bfpo.preferences.store import arrow_tables
from bfpo.training.mismatched import mismatched_of

EncodedRow = Mapping[str, Any]

# Number of rows whose token ids are in memory at once.
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Batch:
    """Groups that go through the model together.

    Attributes:
        groups: their token ids, N answers in total.
        labels: their labels.
        reference: [N] float64 log-probabilities under the reference model, in nats; None where there are none.
        rows: number of each group's row in its source.
    """

    groups: list[TokenGroup]
    labels: GroupLabels
    reference: Tensor | None
    rows: list[int]


def collate(
    rows: Sequence[EncodedRow],
    split: Callable[[Sequence[TokenGroup]], list[list[int]]],
    normalizer: Literal["groups", "tokens"] = "groups",
) -> dict[str, Any]:
    """One process's share of a step: micro-batches made by ``split``, and the number of groups or scored tokens.

    Also the answers to other prompts, if the rows have them. `prepare` has checked the labels of these rows.
    """
    groups = token_groups(rows)
    parts = split(groups)
    tokens = sum(len(group.scored(at)) for group in groups for at in range(len(group.answers)))
    return {
        "batches": [_batch([groups[index] for index in part], [rows[index] for index in part]) for part in parts],
        "mismatched": mismatched_of(rows),
        "count": float(len(groups) if normalizer == "groups" else tokens),
    }


def _batch(groups: list[TokenGroup], rows: Sequence[EncodedRow]) -> Batch:
    labels = replace(group_labels(rows), is_checked=True)
    return Batch(groups, labels, _reference(rows), [row["row"] for row in rows])


def _reference(rows: Sequence[EncodedRow]) -> Tensor | None:
    if "reference" not in rows[0]:
        return None
    return torch.tensor([value for row in rows for value in row["reference"]], dtype=torch.float64)


def as_rows(rows: Iterable[Any]) -> list[EncodedRow]:
    """The rows of a data set as plain mappings."""
    return list(rows)


def token_groups(rows: Sequence[EncodedRow]) -> list[TokenGroup]:
    """The token ids of encoded rows."""
    return [TokenGroup(row["prompt_ids"], row["answer_ids"], row.get("context", ())) for row in rows]


def token_chunks(rows: datasets.Dataset) -> Iterator[list[TokenGroup]]:
    """Yield the token ids of all rows in chunks, as views of the memory-mapped file."""
    for table in arrow_tables(rows.select_columns(["prompt_ids", "answer_ids", "context"]), ROWS_AT_ONCE):
        prompts, answers, context = (table[name].combine_chunks() for name in ("prompt_ids", "answer_ids", "context"))
        answer_parts, places = _parts(answers.flatten()), context.to_pylist()
        ends = np.cumsum([0, *answers.value_lengths().to_pylist()])
        yield [
            TokenGroup(prompt, answer_parts[start:end], own)
            for prompt, start, end, own in zip(_parts(prompts), ends, ends[1:], places, strict=False)
        ]


def _parts(lists: Any) -> list[Any]:
    """The lists of an Arrow array as NumPy arrays."""
    ends = np.cumsum(lists.value_lengths().to_numpy())
    return np.split(lists.flatten().to_numpy(), ends[:-1])


# Number of rows from which a layout is chosen.
_FIRST = 64


def row_sizes(rows: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """[G] number of tokens of each row, the prompt counted once, and [G] that of its longest sequence."""
    sizes = [(stream_tokens(group, "shared"), group.width) for groups in token_chunks(rows) for group in groups]
    tokens, widths = np.array(sizes).T
    return tokens, widths


def first_and_longest(rows: datasets.Dataset, widths: np.ndarray) -> tuple[list[TokenGroup], TokenGroup]:
    """The token ids of the first rows, and of the one with the longest sequence."""
    *first, longest = token_groups(as_rows(rows.select([*range(min(_FIRST, len(rows))), int(np.argmax(widths))])))
    return first, longest


def group_labels(rows: Sequence[EncodedRow]) -> GroupLabels:
    """The labels of encoded rows, with answer indices relative to the batch."""
    is_safe: list[float] = []
    first: list[int] = []
    second: list[int] = []
    better: list[float] = []
    for row in rows:
        start = len(is_safe)
        is_safe += [math.nan if value is None else value for value in row["is_safe"]]
        first += [start + index for index in row["first"]]
        second += [start + index for index in row["second"]]
        better += row["first_is_better"]
    return GroupLabels(
        is_safe=torch.tensor(is_safe, dtype=torch.float32),
        first=torch.tensor(first, dtype=torch.long),
        second=torch.tensor(second, dtype=torch.long),
        first_is_better=torch.tensor(better, dtype=torch.float32),
        cost=_of_answers(rows, "cost"),
        weight=_weights(rows),
        reward=_of_answers(rows, "reward"),
    )


def _of_answers(rows: Sequence[EncodedRow], name: Literal["cost", "reward"]) -> Tensor | None:
    """[N] cost or reward of each answer, NaN where it is unknown; None if no row has any."""
    if not any(row.get(name) for row in rows):
        return None
    values = [value for row in rows for value in row.get(name) or [None] * len(row["is_safe"])]
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float32)


def _weights(rows: Sequence[EncodedRow]) -> Tensor | None:
    """[N] weight of each answer's row, 1 for rows without one; None if no row has one."""
    weights = [row.get("weight") for row in rows]
    if all(weight is None for weight in weights):
        return None
    return torch.tensor(
        [1.0 if weight is None else weight for row, weight in zip(rows, weights, strict=True) for _ in row["is_safe"]],
        dtype=torch.float32,
    )
