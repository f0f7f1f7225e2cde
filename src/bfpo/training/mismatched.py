"""Answers to other prompts, from whose log-ratios KTO estimates the KL divergence between policy and reference."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow
import torch
from accelerate import Accelerator

from bfpo.engine.forward import Engine
from bfpo.engine.reference_cache import scored
from bfpo.errors import BfpoError
from bfpo.groups import TokenGroup
from bfpo.preferences.store import arrow_tables
from bfpo.training.sharded import EMPTY, in_step

# Columns that `mismatched_of` reads.
MISMATCHED_COLUMNS = ("prompt_ids", "mismatched_ids", "mismatched_context", "mismatched_reference")
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Mismatched:
    """Prompts, each with one answer to another prompt, and the sum of their reference log-probabilities in nats."""

    groups: list[TokenGroup]
    reference: float


def with_mismatched(rows: datasets.Dataset, max_length: int) -> datasets.Dataset:
    """Add to every encoded row an answer of another prompt's row, cut to ``max_length``: ``mismatched_ids``.

    The choice is random but the same in every run, so that the reference cache knows the answers again.
    ``mismatched_context`` holds the places of their tokens that are not scored.

    Raises:
        BfpoError: if all rows have the same prompt.
    """
    digests, lengths, answers = _prompts(rows)
    generator = np.random.default_rng(0)
    others = _rows_of_other_prompts(digests, generator)
    numbers, rooms = generator.integers(answers[others]), max_length - lengths
    columns: dict[str, list[Any]] = {"mismatched_ids": [], "mismatched_context": []}
    kind = datasets.List(datasets.Value("int32"))
    start = 0
    for table in arrow_tables(rows.select(others).select_columns(["answer_ids", "context"]), _ROWS_AT_ONCE):
        own = slice(start, start + len(table))
        taken = zip(*(table[name].to_pylist() for name in ("answer_ids", "context")), strict=True)
        cut = [
            _cut(given[number], context[number] if context else [], room)
            for (given, context), number, room in zip(taken, numbers[own], rooms[own], strict=True)
        ]
        for name, lists in zip(columns, zip(*cut, strict=True), strict=True):
            columns[name].append(pyarrow.array(lists, pyarrow.list_(pyarrow.int32())))
        start = own.stop
    for name, chunks in columns.items():
        rows = rows.add_column(name, pyarrow.chunked_array(chunks), feature=kind)  # pyright: ignore
    return rows


def _prompts(rows: datasets.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[R] digest and number of tokens of every row's prompt, and its number of answers."""
    digests: list[bytes] = []
    lengths: list[int] = []
    answers: list[int] = []
    for table in arrow_tables(rows.select_columns(["prompt_ids", "answer_ids"]), _ROWS_AT_ONCE):
        for ids in table["prompt_ids"]:
            prompt = ids.values.to_numpy()
            digests.append(hashlib.blake2b(prompt.tobytes(), digest_size=8).digest())
            lengths.append(len(prompt))
        answers += table["answer_ids"].combine_chunks().value_lengths().to_pylist()
    return np.frombuffer(b"".join(digests), np.uint64), np.array(lengths), np.array(answers)


def _rows_of_other_prompts(digests: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[R] for every row the next one of another prompt, in a random order that starts again at its end."""
    order = generator.permutation(len(digests))
    shuffled = digests[order]
    starts = np.flatnonzero(shuffled != np.roll(shuffled, 1))
    if not len(starts):
        raise BfpoError(
            "all rows have the same prompt, but KTO estimates the KL divergence from answers to other prompts: "
            "add rows with other prompts, or use another loss_type"
        )
    following = np.searchsorted(starts, np.arange(len(order)), side="right") % len(starts)
    others = np.empty_like(order)
    others[order] = order[starts[following]]
    return others


def _cut(answer: list[int], context: list[int], room: int) -> tuple[list[int], list[int]]:
    """An answer and its tokens that are not scored, cut to ``room`` tokens."""
    ids, skipped = answer[:room], [place for place in context if place < room]
    # An answer that begins with other turns may have nothing left that is scored.
    return ids, skipped if len(skipped) < len(ids) else []


def mismatched_rows(rows: datasets.Dataset) -> datasets.Dataset:
    """The mismatched answers as rows with a single answer, for scoring."""
    features = datasets.Features({name: rows.features[name] for name in ("prompt_ids", "answer_ids", "context")})
    return rows.select_columns(["prompt_ids", "mismatched_ids", "mismatched_context"]).map(
        lambda row: {
            "prompt_ids": row["prompt_ids"],
            "answer_ids": [row["mismatched_ids"]],
            "context": [row["mismatched_context"]] if row["mismatched_context"] else [],
        },
        remove_columns=["mismatched_ids", "mismatched_context"],
        features=features,
    )


def mismatched_of(rows: Sequence[Any]) -> Mismatched | None:
    """The mismatched answers of encoded rows; None if they have none."""
    if not rows or "mismatched_ids" not in rows[0]:
        return None
    groups = [TokenGroup(row["prompt_ids"], [row["mismatched_ids"]], [row["mismatched_context"]]) for row in rows]
    return Mismatched(groups, sum(row["mismatched_reference"] for row in rows))


def mean_log_ratio(engine: Engine, model: Any, parts: Iterable[Mismatched | None], accelerator: Accelerator) -> float:
    """Mean log-ratio of mismatched answers over all processes, in nats.

    KTO estimates the KL divergence by it, or by 0 if it is negative (arXiv 2402.01306, section 4.1).
    """
    difference, count = 0.0, 0

    def batches() -> Iterator[list[TokenGroup]]:
        nonlocal difference, count
        for part in filter(None, parts):
            difference -= part.reference
            count += len(part.groups)
            yield from ([part.groups[index] for index in batch] for batch in engine.split(part.groups))

    for groups in in_step(accelerator, batches()):
        with accelerator.autocast():
            total = sum(sum(values) for _, values in scored(engine, model, groups or [EMPTY]))
        difference += total if groups else 0.0
    own = torch.tensor([difference, count], dtype=torch.float32, device=accelerator.device)
    sums: Any = accelerator.reduce(own, reduction="sum")
    return float(sums[0] / sums[1])
