"""The reference of a trainer's rows: from the cache what is there, the rest scored by all processes together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from transformers import PreTrainedModel

from bfpo.engine.cache import ReferenceCache, answer_keys, default_cache_folder, model_digest
from bfpo.engine.forward import Engine
from bfpo.engine.reference import fill_cache
from bfpo.training.labels import ROWS_AT_ONCE, as_rows, token_chunks, token_groups


@dataclass(frozen=True)
class ReferenceCounts:
    """Answers whose reference was found in the cache, and answers that were scored."""

    reused: int = 0
    scored: int = 0

    def __add__(self, other: ReferenceCounts) -> ReferenceCounts:
        return ReferenceCounts(self.reused + other.reused, self.scored + other.scored)


def open_cache(root: str | None, model: PreTrainedModel | Any, precision: str) -> ReferenceCache:
    """The cache of the model as it is now; without a folder, one that lasts as long as the process.

    Args:
        root: folder of all caches, "default" for the user's, or None.
        model: the model, with its adapter if it has one.
        precision: what the model computes in.

    Raises:
        BfpoError: if a file of the cache is damaged.
    """
    description = {"model": model.config.name_or_path, "architecture": type(model).__name__, "precision": precision}
    if root is None:
        return ReferenceCache(None, description)
    folder = default_cache_folder() if root == "default" else Path(root).expanduser()
    return ReferenceCache.open(folder, model_digest(model, precision), description)


def reference_of(
    rows: datasets.Dataset, cache: ReferenceCache, engine: Engine, model: Any, accelerator: Accelerator
) -> tuple[np.ndarray, np.ndarray, ReferenceCounts]:
    """Summed reference log-probabilities of encoded rows, of which a chunk at a time is in memory.

    Args:
        rows: G encoded rows with N answers in total.
        cache: what is known of the model.
        engine: how groups go through it.
        model: the model as it is called, before its first update.
        accelerator: of the processes, which score together.

    Returns:
        [N] sums in nats, [G] answers of every row, and where the sums came from.
    """
    keys, answers = [], []
    for groups in token_chunks(rows):
        keys.append(answer_keys(groups))
        answers += [len(group.answers) for group in groups]
    all_keys, counts = np.concatenate(keys), np.array(answers)
    # The first process's cache decides: while the others read theirs, it may already write.
    unknown = _from_first(np.isnan(cache.get(all_keys)), accelerator)
    starts = np.cumsum(counts) - counts
    missing = np.flatnonzero(np.logical_or.reduceat(unknown, starts))
    before = len(cache.parts)
    with accelerator.autocast():
        own = rows.select(missing[accelerator.process_index :: accelerator.num_processes])
        fill_cache(engine, model, (token_groups(as_rows(chunk)) for chunk in _selections(own)), cache)
    if accelerator.num_processes > 1:
        cache.parts[before:] = gather_object(cache.parts[before:])
    sums = _from_first(cache.get(all_keys), accelerator)
    scored = int(counts[missing].sum())
    return sums, counts, ReferenceCounts(len(all_keys) - scored, scored)


def _selections(rows: datasets.Dataset) -> Iterator[datasets.Dataset]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows.select(range(start, min(start + ROWS_AT_ONCE, len(rows))))


def _from_first(values: np.ndarray, accelerator: Accelerator) -> np.ndarray:
    """The first process's values, on all of them."""
    return broadcast_object_list([values])[0] if accelerator.num_processes > 1 else values
