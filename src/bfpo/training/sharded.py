"""Sharded training: the whole model before it, and equally many passes in every process, which all wait for all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from bfpo.engine.forward import Engine
from bfpo.errors import BfpoError
from bfpo.groups import TokenGroup

# What a process passes through the model when it has nothing left and others have.
EMPTY = TokenGroup([0], [[0]])
_Batch = TypeVar("_Batch")


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds only a part of the weights, between passes."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def hold_whole(accelerator: Accelerator, model: Any, *, bf16: bool) -> None:
    """Move the whole model to the device, where it stays until training divides it.

    So the layout is chosen and the reference scored as with one process, in the precision of training: FSDP gathers
    the weights in their own, for autocast as elsewhere; DeepSpeed computes in bfloat16 alone, and keeps the float32
    weights in its optimizer.

    Raises:
        BfpoError: if DeepSpeed can't train weights of this type.
    """
    # The accelerator has set it again; models loaded later, for example by another run, must be whole too.
    unset_hf_deepspeed_config()
    model.to(accelerator.device)
    if accelerator.is_fsdp2:
        plugin: Any = accelerator.state.fsdp_plugin
        plugin.mixed_precision_policy = None
    elif bf16:
        model.to(torch.bfloat16)
    elif any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise BfpoError("DeepSpeed trains in float32, or with bf16=True: convert the model with model.float()")


def empty_pass(engine: Engine, model: nn.Module) -> Tensor:
    """A differentiable number from a pass over one token, which takes part in all that a pass exchanges."""
    return engine.logps(model, [EMPTY]).policy.sum()


def in_step(accelerator: Accelerator, batches: Iterable[_Batch], *, always: bool = False) -> Iterator[_Batch | None]:
    """Yield batches, and then None until every process has yielded all of its own.

    Processes wait for each other where weights are divided, and with ``always`` if there are several.
    """
    if not (is_sharded(accelerator) or (always and accelerator.num_processes > 1)):
        yield from batches
        return
    remaining = iter(batches)
    while True:
        batch = next(remaining, None)
        have: Any = accelerator.gather(torch.tensor([batch is not None], device=accelerator.device))
        if not have.any():
            return
        yield batch
