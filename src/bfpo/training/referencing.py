"""The reference of a trainer's rows: from the cache what is there, the rest scored by all processes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from transformers import PreTrainedModel

from bfpo.engine.cache import ReferenceCache, answer_keys, default_cache_folder, model_digest
from bfpo.engine.forward import Engine
from bfpo.engine.logps import TokenGroup
from bfpo.engine.reference import fill_cache


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
    groups: Sequence[TokenGroup], cache: ReferenceCache, engine: Engine, model: Any, accelerator: Accelerator
) -> tuple[list[list[float]], ReferenceCounts]:
    """Summed reference log-probability of every answer, in nats, by group; and where they came from."""
    keys = answer_keys(groups)
    # The first process's cache decides: while the others read theirs, it may already write.
    unknown = _from_first(np.isnan(cache.get(keys)).tolist(), accelerator)
    ends = accumulate(len(group.answers) for group in groups)
    missing = [group for group, end in zip(groups, ends, strict=True) if any(unknown[end - len(group.answers) : end])]
    before = len(cache.parts)
    with accelerator.autocast():
        fill_cache(engine, model, missing[accelerator.process_index :: accelerator.num_processes], cache)
    if accelerator.num_processes > 1:
        cache.parts[before:] = gather_object(cache.parts[before:])
    values = iter(_from_first(cache.get(keys).tolist(), accelerator))
    sums = [[next(values) for _ in group.answers] for group in groups]
    scored = sum(len(group.answers) for group in missing)
    return sums, ReferenceCounts(len(keys) - scored, scored)


def _from_first(values: list[Any], accelerator: Accelerator) -> list[Any]:
    """The first process's values, on all of them."""
    return broadcast_object_list([values])[0] if accelerator.num_processes > 1 else values
