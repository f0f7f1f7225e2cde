"""Engines that train in several processes: which are used, with which settings, and which are refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from accelerate import PartialState
from accelerate.utils import DistributedType, parse_flag_from_env

from bfpo.errors import BfpoError

if TYPE_CHECKING:
    from transformers import TrainingArguments

# How weights, gradients and optimizer state are divided among the processes.
Sharding = Literal["none", "FSDP2"]

# By the variable that accelerate's launcher sets for it.
_REFUSED = {
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
_FSDP = "ACCELERATE_USE_FSDP"
# Settings of FSDP by their variable: accelerate's default, the value that training needs, and why.
_FSDP_SETTINGS = {
    "FSDP_VERSION": ("1", "2", "FSDP1 keeps weights in other shapes than the optimizer and the checkpoints have"),
    "FSDP_STATE_DICT_TYPE": ("SHARDED_STATE_DICT", "FULL_STATE_DICT", "a checkpoint must fit any number of processes"),
    "FSDP_CPU_RAM_EFFICIENT_LOADING": ("false", "false", "every process scores its share of the reference"),
    "FSDP_ACTIVATION_CHECKPOINTING": ("false", "false", "the recipe's gradient_checkpointing does it"),
    "FSDP_OFFLOAD_PARAMS": ("false", "false", "the results with weights on the CPU are not checked"),
}
_USED = "bfpo trains with several processes by DDP and FSDP2"
_START = "start it with 'accelerate launch --multi_gpu -m bfpo train ...' or with a configuration for FSDP2"


def check_engine(args: TrainingArguments) -> None:
    """Refuse engines and settings that training would use wrongly, before anything uses them.

    They are read from the variables of accelerate's launcher and from the arguments.

    Raises:
        BfpoError: if the process was started for another engine, an argument asks for one, or a setting isn't right.
    """
    for variable, engine in _REFUSED.items():
        if parse_flag_from_env(variable):
            raise BfpoError(f"{variable} is set, so this process was started for {engine}, but {_USED}; {_START}")
    for name, engine in _ARGUMENTS.items():
        if getattr(args, name):
            raise BfpoError(f"{name} asks for {engine}: leave it out; {_USED}, for which accelerate's launcher asks")
    if parse_flag_from_env(_FSDP):
        for variable, (default, wanted, reason) in _FSDP_SETTINGS.items():
            value = os.environ.get(variable, default)
            if value.upper() != wanted.upper():
                raise BfpoError(
                    f"{variable} is {value}, but bfpo trains by FSDP with {wanted} only, because {reason}: set "
                    f"{variable.lower()}: {wanted} in the launcher's configuration"
                )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no" and not (args.bf16 or args.fp16):
        raise BfpoError(
            f"the launcher was started with mixed precision {precision}, and the run isn't: leave "
            "--mixed_precision out of 'accelerate launch' and its configuration, and set the run's precision"
        )


def shard_on_cpu() -> None:
    """Have accelerate use FSDP on CPU too, where it would train by DDP without a word."""
    if parse_flag_from_env(_FSDP) and PartialState().distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU  # pyright: ignore


def check_merge(merge_adapter: bool) -> None:
    """Refuse to merge an adapter into weights that are divided.

    Raises:
        BfpoError: if a recipe asks for it.
    """
    if merge_adapter and sharding() != "none":
        raise BfpoError(
            f"merge_adapter can't merge into weights that {sharding()} divides: leave it out, and merge the saved "
            "adapter later (merge_and_unload of PEFT)"
        )


def sharding() -> Sharding:
    """How the engine that this process was started for divides the weights; see `check_engine` for what is refused."""
    return "FSDP2" if parse_flag_from_env(_FSDP) else "none"


def process_record() -> dict[str, int | str]:
    """The number of processes and their sharding, for ``run.json``."""
    return {"number": int(os.environ.get("WORLD_SIZE", "1")), "sharding": sharding()}
