"""What differs where an engine divides the weights among processes: every pass needs all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from bfpo.engine.forward import Engine
from bfpo.groups import TokenGroup

# What a process passes through the model when it has nothing left and others have.
EMPTY = TokenGroup([0], [[0]])
_Batch = TypeVar("_Batch")


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds only a part of the weights, between passes."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def hold_whole(accelerator: Accelerator, model: Any) -> None:
    """Move the whole model to the device, where it stays until training divides it.

    So the layout is chosen and the reference scored as with one process. The weights are gathered in their own
    precision: the pass's own (autocast) then computes as it did for the reference.
    """
    model.to(accelerator.device)
    if plugin := accelerator.state.fsdp_plugin:
        plugin.mixed_precision_policy = None


def empty_pass(engine: Engine, model: nn.Module) -> Tensor:
    """A differentiable number from a pass over one token, which takes part in all that a pass exchanges."""
    return engine.logps(model, [EMPTY]).policy.sum()


def in_step(accelerator: Accelerator, batches: Iterable[_Batch]) -> Iterator[_Batch | None]:
    """Yield batches, and where weights are divided then None until every process has yielded all of its own."""
    if not is_sharded(accelerator):
        yield from batches
        return
    remaining = iter(batches)
    while True:
        batch = next(remaining, None)
        have: Any = accelerator.gather(torch.tensor([batch is not None], device=accelerator.device))
        if not have.any():
            return
        yield batch
