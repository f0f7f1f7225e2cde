"""Refusal of distributed engines that training would use wrongly; several processes train by DDP."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from accelerate.utils import parse_flag_from_env

from bfpo.errors import BfpoError

if TYPE_CHECKING:
    from transformers import TrainingArguments

# By the variable that accelerate's launcher sets for it.
_ENGINES = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "accelerate's parallelism config (tensor, context or sequence parallel)",
}
# By the argument of transformers' Trainer that asks for it.
_ARGUMENTS = {
    "fsdp": "FSDP",
    "deepspeed": "DeepSpeed",
    "parallelism_config": "accelerate's parallelism config (tensor, context or sequence parallel)",
}
_REMEDY = "bfpo trains with several processes by DDP only, as its results are not checked with others"


def check_engine(args: TrainingArguments) -> None:
    """Refuse every engine but DDP, from the launcher's variables and the arguments, before anything uses them.

    Under DeepSpeed each micro-batch would be an optimizer step; FSDP dead-locks where processes have different numbers
    of micro-batches, and the fused loss reads a sharded head outside its forward.

    Raises:
        BfpoError: if the process was started for another engine, or an argument asks for one.
    """
    for variable, engine in _ENGINES.items():
        if parse_flag_from_env(variable):
            raise BfpoError(
                f"{variable} is set, so this process was started for {engine}: {_REMEDY}; start it with "
                "'accelerate launch --multi_gpu -m bfpo train ...'"
            )
    for name, engine in _ARGUMENTS.items():
        if getattr(args, name):
            raise BfpoError(f"{name} asks for {engine}: {_REMEDY}; leave it out")
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no" and not (args.bf16 or args.fp16):
        raise BfpoError(
            f"the launcher was started with mixed precision {precision}, and the run isn't: leave "
            "--mixed_precision out of 'accelerate launch' and its configuration, and set the run's precision"
        )
