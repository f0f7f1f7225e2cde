"""Train with as many processes as were started, by the engine that they were started for; for test_sharded.py."""

import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

import models
from bfpo import BFPOConfig, BFPOTrainer
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train
from training.rows import pairs, word_tokenizer

# What each run changes. 11 pairs in steps of 5: an epoch's last step has one pair, less than there are processes.
RUNS = {
    "all": {},
    "exact": {},
    "untied": {"activation_checkpointing": True, "max_grad_norm": 0.05},
    "lora": {"loss_type": "sft"},
    "down_proj": {"trainable": "down_proj"},
    "kto": {"loss_type": "kto", "undesirable_weight": 0.01},
    "padded": {"layout": "padded"},
    "bf16": {"bf16": True},
}


def train_and_leave(folder: Path, *names: str) -> None:
    """Train the runs one after another, each in its folder, and leave weights and log; ends the process."""
    without_compiling()
    for name in names:
        train_one(folder / name, name)
    leave()


def train_recipes(*jobs) -> None:
    """Train recipes one after another, each given as file, overrides, and whether to resume; ends the process."""
    without_compiling()
    for path, overrides, resume in jobs:
        train(load_recipe(path, overrides), resume=resume)
    leave()


def leave():
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    # Now and then gloo aborts while Python shuts down, after all work is done.
    os._exit(0)


def without_compiling():
    """Have DeepSpeed use gloo alone, and not compile its own communication for CPUs, which takes minutes."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED"):
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def train_one(folder: Path, name: str) -> None:
    options = {
        "output_dir": str(folder), "beta": 0.3, "learning_rate": 3e-3, "global_batch_size": 5, "num_train_epochs": 2,
        "max_steps": 6, "save_strategy": "no", "logging_steps": 1, "use_cpu": True, "disable_tqdm": True,
        "micro_batch_tokens": 40, "reference_cache": None, "lr_scheduler_type": "constant", "warmup_steps": 0,
        "eval_strategy": "steps", "eval_steps": 3, "report_to": "none", "optim": "adamw_torch",
        # AdamW divides a gradient by its size, so that the rounding of one near 0 would move its weight.
        "adam_epsilon": 0.01, **RUNS[name],
    }  # fmt: skip
    if options.get("loss_type") == "sft":
        del options["beta"]
    dtype = torch.float64 if name == "exact" else torch.float32
    model = models.tiny_model("llama", dtype, tie_word_embeddings=name != "untied")
    if name == "exact":
        # Norms in float32 round gradients that are scaled by 3/5 otherwise than by 1/5.
        models.without_float32_parts(model, pytest.MonkeyPatch())
    trainer = BFPOTrainer(
        model, BFPOConfig(**options), pairs(11), pairs(4, seed=9), processing_class=word_tokenizer(),
        peft_config=LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM") if name == "lora" else None,
    )  # fmt: skip
    if trainer.is_deepspeed_enabled:
        # Otherwise ZeRO-3 would keep whole what is small, and everything here is.
        small = ("stage3_param_persistence_threshold", "stage3_max_live_parameters", "stage3_max_reuse_distance")
        trainer.accelerator.state.deepspeed_plugin.deepspeed_config["zero_optimization"] |= dict.fromkeys(small, 0)
    trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    held = {parameter: local_size(parameter) for parameter in model.parameters()}
    with gathered(model):
        weights = {key: whole(value).detach().clone().contiguous() for key, value in model.named_parameters()}
    parts = sum(held.values()) / sum(value.numel() for value in weights.values())
    save_file(weights, folder / f"weights-{trainer.args.process_index}.safetensors")
    trainer.save_model(str(folder / "saved"))
    if trainer.is_world_process_zero():
        result = {
            "part": parts,
            "processes": trainer.args.world_size,
            "log": [entry for entry in trainer.state.log_history if "train_runtime" not in entry],
        }
        (folder / "result.json").write_text(json.dumps(result))
    trainer.accelerator.wait_for_everyone()


def whole(value):
    return value.full_tensor() if isinstance(value, DTensor) else value


def local_size(value):
    return value.to_local().numel() if isinstance(value, DTensor) else value.numel()


def gathered(model):
    """Context in which ZeRO-3's weights are whole."""
    if not any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(model.parameters()))
