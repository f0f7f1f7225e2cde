"""Engines that train in several processes: which are used, with which settings, and which are refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from accelerate import PartialState
from accelerate.utils import DistributedType, parse_flag_from_env
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from bfpo.errors import BfpoError

if TYPE_CHECKING:
    from transformers import TrainingArguments

# How weights, gradients and optimizer state are divided among the processes.
Sharding = Literal["none", "FSDP2", "ZeRO-2", "ZeRO-3"]

# By the variable that accelerate's launcher sets for it.
_REFUSED = {
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "accelerate's parallelism config (tensor, context or sequence parallel)",
}
# By the argument of transformers' Trainer that asks for it.
_ARGUMENTS = {
    "fsdp": "FSDP",
    "deepspeed": "DeepSpeed",
    "parallelism_config": "accelerate's parallelism config (tensor, context or sequence parallel)",
}
_FSDP, _DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"
_STAGE = "ACCELERATE_DEEPSPEED_ZERO_STAGE"
_UNCHECKED = "the results with another value are not checked"
# Settings of an engine by their variable: accelerate's default, the values that training needs, and why.
_SETTINGS = {
    _FSDP: {
        "FSDP_VERSION": ("1", ["2"], "FSDP1 flattens weights, which trained subsets and adapters don't survive"),
        "FSDP_STATE_DICT_TYPE": ("SHARDED_STATE_DICT", ["FULL_STATE_DICT"], "checkpoints fit any number of processes"),
        "FSDP_CPU_RAM_EFFICIENT_LOADING": ("false", ["false"], "every process scores its share of the reference"),
        "FSDP_ACTIVATION_CHECKPOINTING": ("false", ["false"], "the recipe's gradient_checkpointing does it"),
        "FSDP_OFFLOAD_PARAMS": ("false", ["false"], _UNCHECKED),
    },
    _DEEPSPEED: {
        _STAGE: ("2", ["2", "3"], _UNCHECKED),
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": ("none", ["none"], "the other settings here replace that file"),
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": ("none", ["none"], _UNCHECKED),
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": ("none", ["none"], _UNCHECKED),
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("auto", ["auto", "1"], "the recipe's batch_size is the whole step"),
        "ACCELERATE_GRADIENT_CLIPPING": ("auto", ["auto"], "the recipe's max_grad_norm clips"),
        "ACCELERATE_USE_CPU": ("false", ["false"], "accelerate would train by DDP; on CPU, set DS_ACCELERATOR=cpu"),
    },
}
_STAGE_3 = {
    "ACCELERATE_DEEPSPEED_ZERO3_INIT": ("true", ["false"], "every process scores its share of the reference"),
    "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": ("false", ["true"], "the trained model is saved whole"),
}
_USED = "bfpo trains with several processes by DDP, FSDP2 and DeepSpeed's ZeRO-2 and ZeRO-3"


def check_engine(args: TrainingArguments) -> None:
    """Refuse engines and settings that training would use wrongly, before anything uses them.

    They are read from the variables of accelerate's launcher and from the arguments.

    Raises:
        BfpoError: if the process was started for another engine, an argument asks for one, or a setting isn't right.
    """
    for variable, engine in _REFUSED.items():
        if parse_flag_from_env(variable):
            raise BfpoError(
                f"{variable} is set, so this process was started for {engine}, but {_USED}: start it with one of these"
            )
    for name, engine in _ARGUMENTS.items():
        if getattr(args, name):
            raise BfpoError(f"{name} asks for {engine}: leave it out; {_USED}, for which accelerate's launcher asks")
    for engine, settings in _SETTINGS.items():
        if parse_flag_from_env(engine):
            _check_settings(settings | (_STAGE_3 if sharding() == "ZeRO-3" else {}))
    if parse_flag_from_env(_DEEPSPEED):
        if find_spec("deepspeed") is None:
            raise BfpoError("this process was started for DeepSpeed: install it with pip install 'bfpo[deepspeed]'")
        if args.fp16:
            raise BfpoError("fp16 under DeepSpeed skips updates and is not checked: use bf16, or another engine")
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no" and not (args.bf16 or args.fp16):
        raise BfpoError(
            f"the launcher was started with mixed precision {precision}, and the run isn't: leave "
            "--mixed_precision out of 'accelerate launch' and its configuration, and set the run's precision"
        )


def _check_settings(settings: Mapping[str, tuple[str, list[str], str]]) -> None:
    for variable, (default, wanted, reason) in settings.items():
        value = os.environ.get(variable, default)
        if value.upper() not in (each.upper() for each in wanted):
            raise BfpoError(
                f"{variable} is {value}, but must be {' or '.join(wanted)} ({reason}): set it in the configuration of "
                "'accelerate launch'; 'bfpo recipe list' shows configurations to copy"
            )


def set_up_engine() -> None:
    """What transformers' setup of the arguments does wrongly for an engine, done right, before the model is loaded."""
    if parse_flag_from_env(_DEEPSPEED):
        # Otherwise ZeRO-3 would divide the model while it is loaded, before the reference is scored.
        unset_hf_deepspeed_config()
    if PartialState().distributed_type == DistributedType.MULTI_CPU and sharding() != "none":
        # On CPU accelerate would train by DDP without a word.
        kind = DistributedType.MULTI_GPU if sharding() == "FSDP2" else DistributedType.DEEPSPEED
        PartialState._shared_state["distributed_type"] = kind  # pyright: ignore


def check_not_sharded(problem: str, remedy: str) -> None:
    """Refuse what isn't possible where an engine divides the training among processes.

    Raises:
        BfpoError: if this process was started for such an engine.
    """
    if sharding() != "none":
        raise BfpoError(f"{problem} that {sharding()} divides: {remedy}")


def sharding() -> Sharding:
    """How the engine that this process was started for divides the weights; see `check_engine` for what is refused."""
    if parse_flag_from_env(_DEEPSPEED):
        return "ZeRO-3" if os.environ.get(_STAGE) == "3" else "ZeRO-2"
    return "FSDP2" if parse_flag_from_env(_FSDP) else "none"


def process_record() -> dict[str, int | str]:
    """The number of processes and their sharding, for ``run.json``."""
    return {"number": int(os.environ.get("WORLD_SIZE", "1")), "sharding": sharding()}
