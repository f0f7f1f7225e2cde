"""One side of the engine's benchmark, in a process of its own: trains some steps and prints what it measured as JSON.

Usage: side.py SIDE PRECISION TRAINED STEPS PAIRS, with SIDE one of ours, lean, shipped, best, compact.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from workload import Lengths, make_model, make_pairs, make_tokenizer, pair_flops

BATCH = 8
BETA = 0.1
LEARNING_RATE = 1e-5


def peak_rss() -> float:
    """Largest resident set of this process so far, in MB; `ru_maxrss` would begin with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def matmul_peak(dtype: torch.dtype) -> float:
    """Floating point operations a second of the best of four products of 4096-cubed."""
    left, right = (torch.randn(4096, 4096).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * 4096**3 / best


class StepTimes(TrainerCallback):
    """Seconds of every step, logging and loading included."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Mark the beginning of the first step."""
        if not self.marks:
            self.marks.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Mark the end of a step."""
        self.marks.append(time.perf_counter())


def common(precision: str, steps: int) -> dict[str, Any]:
    """Arguments that are equal on every side."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "max_steps": steps,
        "per_device_train_batch_size": BATCH,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "bf16": precision == "bf16",
        "use_cpu": not torch.accelerator.is_available(),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "beta": BETA,
        "loss_type": "ipo",
        "max_length": None,
    }


def ours(side: str, precision: str, trained: str, steps: int, data: Any, times: StepTimes) -> Any:
    """Our trainer; lean is the same with micro-batches of about one pair."""
    from bfpo import BFPOConfig, BFPOTrainer

    arguments = common(precision, steps) | {
        "max_length": 4096,
        "reduction": "mean",
        "trainable": trained,
        "micro_batch_tokens": 1024 if side == "lean" else 16_384,
        "reference_cache": None,
    }
    return BFPOTrainer(
        make_model(), BFPOConfig(**arguments), data, processing_class=make_tokenizer(), callbacks=[times]
    )


def theirs(side: str, precision: str, trained: str, steps: int, data: Any, times: StepTimes) -> Any:
    """TRL's trainer: as shipped but for the precision; at its best; and with its GPU path's selection of positions."""
    from trl import DPOConfig, DPOTrainer
    from trl.trainer import utils

    arguments = common(precision, steps) | {"loss_type": ["ipo"]}
    if side != "shipped":
        arguments |= {
            "gradient_checkpointing": False,
            "precompute_ref_log_probs": True,
            "train_sampling_strategy": "group_by_length",
            "length_column_name": "length",
            "remove_unused_columns": False,
        }
    if side == "compact":
        utils._use_triton = lambda device: True
    model = make_model()
    if side == "shipped":
        # The reference is a second model, which TRL loads from where the first came from.
        folder = tempfile.mkdtemp()
        model.save_pretrained(folder)
        model.config._name_or_path = folder
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained == "all" or trained in name)
    trainer = DPOTrainer(
        model, args=DPOConfig(**arguments), train_dataset=data, processing_class=make_tokenizer(), callbacks=[times]
    )
    if side != "shipped":
        # TRL's preparation drops the column that the sampler groups by.
        rows = trainer.train_dataset
        longest = [len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows]
        trainer.train_dataset = rows.add_column("length", longest)
    return trainer


def main() -> None:
    """Train, measure, print."""
    side, precision, trained, steps, pairs = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
    data = make_pairs(pairs, Lengths())
    times = StepTimes()
    if side in ("ours", "lean"):
        import bfpo.training.trainer  # noqa: F401
    else:
        import trl.trainer.dpo_trainer  # noqa: F401
    imported = peak_rss()
    started = time.perf_counter()
    trainer = (ours if side in ("ours", "lean") else theirs)(side, precision, trained, steps, data, times)
    prepared = time.perf_counter() - started
    trainer.train()
    model = trainer.model
    weights = sum(p.numel() for p in model.parameters())
    training = sum(p.numel() for p in model.parameters() if p.requires_grad)
    seconds = [later - earlier for earlier, later in zip(times.marks, times.marks[1:], strict=False)][1:]
    lengths = [[len(row[name].split()) for name in ("prompt", "chosen", "rejected")] for row in data]
    flops = {
        shared: sum(
            pair_flops(model, prompt, [chosen + 1, rejected + 1], shared=shared, trained=trained)
            for prompt, chosen, rejected in lengths
        )
        / pairs
        for shared in (True, False)
    }
    peak_memory = peak_rss()
    print(
        json.dumps(
            {
                "side": side,
                "precision": precision,
                "trained": trained,
                "step_seconds": seconds,
                "prepare_seconds": prepared,
                "net_mb": peak_memory - imported - 4 * (weights + 3 * training) / 2**20,
                "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
                "tokens_a_pair": sum(sum(row) + 2 for row in lengths) / pairs,
                "flops_a_pair": {"shared": flops[True], "packed": flops[False]},
                "matmul_peak": matmul_peak(torch.bfloat16 if precision == "bf16" else torch.float32),
            }
        )
    )


if __name__ == "__main__":
    main()
