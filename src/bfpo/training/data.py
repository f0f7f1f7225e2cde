"""A trainer's data: encoded rows of the main sources and the buffer, checked against what the objective reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow

from bfpo.errors import BfpoError
from bfpo.objectives.registry import Objective
from bfpo.preferences.encoding import EncodingCounts, encode
from bfpo.preferences.loading import convert
from bfpo.preferences.reading import dataset_source


@dataclass(frozen=True)
class Source:
    """Rows of one origin, as `load_preferences` returns them.

    Attributes:
        rows: the rows.
        name: what messages and records call it.
        role: "main" rows make up the epochs, "buffer" rows cycle beside them.
    """

    rows: datasets.Dataset
    name: str = "train_dataset"
    role: Literal["main", "buffer"] = "main"


@dataclass(frozen=True)
class Blend:
    """Several sources to train on together; the paper's are a safety set and a helpfulness buffer."""

    sources: Sequence[Source]


@dataclass(frozen=True)
class TrainingData:
    """Encoded rows, main first, with how many there are of each and what encoding had to do by source."""

    rows: datasets.Dataset
    main: int
    buffer: int
    counts: dict[str, EncodingCounts]


def prepare(data: datasets.Dataset | Blend, tokenizer: Any, max_length: int, objective: Objective) -> TrainingData:
    """Encode every source, and check that it carries what the objective reads.

    Raises:
        BfpoError: if a label that the objective reads is missing, or a pairwise objective gets lone answers.
    """
    sources = data.sources if isinstance(data, Blend) else [Source(data)]
    ordered = sorted(sources, key=lambda source: source.role != "main")
    encoded = {source.name: encode(_canonical(source), tokenizer, max_length) for source in ordered}
    if len(encoded) < len(ordered):
        raise BfpoError("two sources have the same name: give every source a name of its own")
    for name, part in encoded.items():
        _check(part.counts, name, objective)
    rows = datasets.concatenate_datasets([part.dataset for part in encoded.values()])
    main = sum(len(encoded[source.name].dataset) for source in ordered if source.role == "main")
    return TrainingData(rows, main, len(rows) - main, {name: part.counts for name, part in encoded.items()})


def _canonical(source: Source) -> datasets.Dataset:
    """The rows as `load_preferences` returns them; a data set of one's own is converted, and checked, as a file is."""
    if "row" in source.rows.column_names:
        return source.rows
    return convert(dataset_source(source.name, source.rows))[0]


def with_reference(data: TrainingData, sums: np.ndarray, answers: np.ndarray) -> TrainingData:
    """The same data with the reference log-probability of every answer beside it.

    Args:
        data: G rows with N answers in total.
        sums: [N] log-probabilities in nats.
        answers: [G] answers of every row.
    """
    ends = np.concatenate([[0], np.cumsum(answers)]).astype(np.int32)
    column = pyarrow.ListArray.from_arrays(ends, sums)
    return replace(data, rows=data.rows.add_column("reference", column))  # pyright: ignore[reportArgumentType]


def _check(counts: EncodingCounts, source: str, objective: Objective) -> None:
    if objective.normalizer == "groups" and counts.first_without_pair is not None:
        raise BfpoError(
            f"{source}, row {counts.first_without_pair}: a pairwise objective needs at least two answers a prompt; "
            "train single answers with loss_type 'sft'"
        )
    if objective.reads_safety and counts.first_unknown_safety is not None:
        raise BfpoError(
            f"{source}, row {counts.first_unknown_safety}: the objective reads the safety of every answer and this "
            "one's is unknown; add chosen_is_safe and rejected_is_safe, or load the source with unknown_safety=1.0 "
            "(all safe, as the paper's buffer) or 'drop'"
        )
