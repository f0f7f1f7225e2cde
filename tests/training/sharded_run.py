"""Train with as many processes as were started, by the engine that they were started for; for test_sharded.py."""

import json
import os
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

import models
from bfpo import BFPOConfig, BFPOTrainer
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
    for name in names:
        train_one(folder / name, name)
    torch.distributed.is_initialized() and torch.distributed.destroy_process_group()
    # Now and then gloo aborts while Python shuts down, after all work is done.
    os._exit(0)


def train_one(folder: Path, name: str) -> None:
    options = {
        "output_dir": str(folder), "beta": 0.3, "learning_rate": 3e-3, "global_batch_size": 5, "num_train_epochs": 2,
        "max_steps": 6, "save_strategy": "no", "logging_steps": 1, "use_cpu": True, "disable_tqdm": True,
        "micro_batch_tokens": 40, "reference_cache": None, "lr_scheduler_type": "constant", "warmup_steps": 0,
        "eval_strategy": "steps", "eval_steps": 3, "report_to": "none", "optim": "adamw_torch", **RUNS[name],
    }  # fmt: skip
    if options.get("loss_type") == "sft":
        del options["beta"]
    dtype = torch.float64 if name == "exact" else torch.float32
    trainer = BFPOTrainer(
        models.tiny_model("llama", dtype, tie_word_embeddings=name != "untied"),
        BFPOConfig(**options), pairs(11), pairs(4, seed=9), processing_class=word_tokenizer(),
        peft_config=LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM") if name == "lora" else None,
    )  # fmt: skip
    trainer.train()
    weights = {
        key: whole(value).detach().clone().contiguous()
        for key, value in trainer.accelerator.unwrap_model(trainer.model_wrapped).named_parameters()
    }
    save_file(weights, folder / f"weights-{trainer.args.process_index}.safetensors")
    trainer.save_model(str(folder / "saved"))
    if trainer.is_world_process_zero():
        result = {
            "engine": type(trainer.model_wrapped).__mro__[1].__name__,
            "processes": trainer.args.world_size,
            "log": [entry for entry in trainer.state.log_history if "train_runtime" not in entry],
        }
        (folder / "result.json").write_text(json.dumps(result))
    trainer.accelerator.wait_for_everyone()


def whole(value):
    return value.full_tensor() if isinstance(value, DTensor) else value
