"""Reference log-probabilities, computed once, before training, by the weights that will be trained."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from bfpo.engine.cache import ReferenceCache, answer_keys
from bfpo.engine.forward import Engine
from bfpo.engine.logps import TokenGroup

# Seconds after which what was scored is written down, so that a killed pass loses little.
_SECONDS_A_FILE = 30.0


def reference_logps(engine: Engine, model: nn.Module, groups: Sequence[TokenGroup]) -> list[list[float]]:
    """Summed log-probability of every answer of every group under the model as it is now.

    Args:
        engine: how the groups go through the model.
        model: the model before its first update, as it is called; its training mode is restored afterwards.
        groups: the groups, in any order.

    Returns:
        For each group, in the order given, the sums of its answers in nats.
    """
    sums: list[list[float]] = [[] for _ in groups]
    for batch, values in _score(engine, model, groups):
        for index, group_sums in zip(batch, values, strict=True):
            sums[index] = group_sums
    return sums


def fill_cache(engine: Engine, model: nn.Module, chunks: Iterable[Sequence[TokenGroup]], cache: ReferenceCache) -> None:
    """Score groups, which come in chunks so that they need not all be in memory, and keep the result, file by file."""
    keys: list[np.ndarray] = []
    sums: list[float] = []
    tokens: list[int] = []

    def write() -> None:
        if keys:
            cache.add(np.concatenate(keys), np.array(sums), np.array(tokens))
        for kept in (keys, sums, tokens):
            kept.clear()

    written = time.monotonic()
    for groups in chunks:
        for batch, values in _score(engine, model, groups):
            part = [groups[index] for index in batch]
            keys.append(answer_keys(part))
            sums += [value for group_sums in values for value in group_sums]
            tokens += [len(answer) for group in part for answer in group.answers]
            if time.monotonic() - written > _SECONDS_A_FILE:
                write()
                written = time.monotonic()
    write()


@torch.no_grad()
def _score(
    engine: Engine, model: nn.Module, groups: Sequence[TokenGroup]
) -> Iterator[tuple[list[int], list[list[float]]]]:
    """Micro-batch by micro-batch, the groups in it and their answers' sums."""
    was_training = model.training
    model.eval()
    try:
        with engine.attached():
            for batch in engine.split(groups):
                values = iter(engine.logps(model, [groups[index] for index in batch]).policy.tolist())
                yield batch, [[next(values) for _ in groups[index].answers] for index in batch]
    finally:
        model.train(was_training)
