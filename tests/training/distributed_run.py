"""Train a float64 model with as many processes as were started, and leave its weights; for test_processes.py.

As a script: distributed_run.py FOLDER STEPS [resume] [kto], where the folder gets checkpoints, weights and log.
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from bfpo import BFPOConfig, BFPOTrainer
from models import tiny_llama
from training.rows import pairs, word_tokenizer


def train_and_leave(folder: Path, steps: int, *options: str) -> None:
    """Train, and leave checkpoints, weights and log in the folder; ends the process."""
    # Its estimate of the KL divergence is a mean over all processes; the small weight keeps it above 0.
    kto = {"loss_type": "kto", "undesirable_weight": 0.01} if "kto" in options else {}
    arguments = BFPOConfig(
        output_dir=str(folder), beta=0.3, learning_rate=3e-3, global_batch_size=5, num_train_epochs=2, max_steps=steps,
        save_steps=2, save_only_model=False, logging_steps=1, use_cpu=True, disable_tqdm=True, micro_batch_tokens=40,
        reference_cache=str(folder / "reference"), lr_scheduler_type="constant", warmup_steps=0,
        eval_strategy="steps", eval_steps=3, report_to="none", **kto,
    )  # fmt: skip
    # 11 pairs in steps of 5: the last step of an epoch has a single one, less than there are processes.
    trainer = BFPOTrainer(
        tiny_llama(dtype=torch.float64), arguments, pairs(11), pairs(4, seed=9), processing_class=word_tokenizer()
    )
    trainer.train(resume_from_checkpoint="resume" in options)
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        save_file(
            {name: value.contiguous() for name, value in model.named_parameters()}, folder / "weights.safetensors"
        )
        (folder / "log.json").write_text(json.dumps([trainer.args.world_size, trainer.state.log_history]))
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    # Now and then gloo aborts while Python shuts down, after all work is done.
    os._exit(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_and_leave(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
