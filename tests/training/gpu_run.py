"""Trains a small model for some steps; as a script (OUTPUT_DIR RESULT) it writes the losses to a file."""

import json
import sys
from pathlib import Path

import torch

from bfpo import BFPOConfig, BFPOTrainer
from models import tiny_llama
from training.rows import pairs, word_tokenizer


def trained(folder, attention=None, steps=3, save_steps=0, resume=False):
    """Losses of every step and the final weights on the CPU, in float32, with this attention if any is given."""
    arguments = BFPOConfig(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=8, learning_rate=1e-3, loss_type="bfpo",
        warmup_steps=0, logging_steps=1, report_to="none", disable_tqdm=True, reference_cache=None,
        micro_batch_tokens=100, use_cpu=not torch.cuda.is_available(),
        save_strategy="steps" if save_steps else "no", save_steps=save_steps or 500,
    )  # fmt: skip
    # Heads of 16, the least that FlexAttention takes.
    model = tiny_llama(hidden_size=64)
    trainer = BFPOTrainer(model, arguments, pairs(24), processing_class=word_tokenizer())
    assert trainer.layout.layout == "shared", trainer.layout
    assert attention in (None, trainer.layout.attention), trainer.layout
    trainer.train(resume_from_checkpoint=resume or None)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    weights = {name: value.detach().cpu().clone() for name, value in trainer.model.state_dict().items()}
    return losses, weights


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(trained(Path(sys.argv[1]))[0]), encoding="utf-8")
