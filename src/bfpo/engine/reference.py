"""Reference log-probabilities, computed once, before training, by the weights that will be trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bfpo.engine.forward import Engine
from bfpo.engine.logps import TokenGroup


@torch.no_grad()
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
    was_training = model.training
    model.eval()
    try:
        with engine.attached():
            for batch in engine.split(groups):
                logps = engine.logps(model, [groups[index] for index in batch])
                values, owners = logps.policy.tolist(), logps.group.tolist()
                for owner, value in zip(owners, values, strict=True):
                    sums[batch[owner]].append(value)
    finally:
        model.train(was_training)
    return sums
