"""Resources that a run used, for ``run.json``: tokens, operations, share of the device's peak, memory, CPU time."""

from __future__ import annotations

import re
import time
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from bfpo.engine.work import Work, training_flops, work_of
from bfpo.training.batches import token_chunks
from bfpo.training.trainer import BFPOTrainer

# Dense bf16 operations per second, as in get_peak_flops of pytorch/torchtitan (torchtitan/tools/utils.py), and for L40S
# and L4 of karpathy/nanochat (nanochat/common.py); the first whose words are in the device's name.
_PEAKS = {
    "B200": 2.25e15,
    "H100 PCIe": 7.56e14,
    "H100 NVL": 8.35e14,
    "H100": 9.89e14,
    "H200": 9.89e14,
    "A100": 3.12e14,
    "L40S": 3.62e14,
    "L4": 1.21e14,
}


def usage(trainer: BFPOTrainer, first_step: int, seconds: float) -> dict[str, Any]:
    """What the steps of a run used, in numbers that JSON can hold; None where a number isn't known.

    Tokens, answer tokens and operations are those of all steps and processes, including earlier sessions of a resumed
    run; evaluations, the reference pass and KTO's answers to other prompts don't count. Rates, memory and CPU time are
    those of this session, memory and CPU time of the main process alone.

    Args:
        trainer: the trainer, after training.
        first_step: the step that this session resumed from, 0 for a new run.
        seconds: time of this session's training.
    """
    chunks = token_chunks(trainer.training_data.rows)
    rows = np.array([astuple(work_of(group, trainer.layout.layout)) for chunk in chunks for group in chunk])
    before, now = (_work_of_steps(trainer, rows, steps) for steps in (first_step, trainer.state.global_step))
    model: Any = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    all_of_it, earlier = training_flops(model, now), training_flops(model, before)
    rate = None if all_of_it is None or earlier is None or seconds <= 0 else (all_of_it - earlier) / seconds
    peak = _peak(trainer.args.device) if trainer.args.bf16 else None
    return {
        "tokens": now.tokens,
        "answer_tokens": now.scored,
        "flops": all_of_it,
        "tokens_per_second": (now.tokens - before.tokens) / seconds if seconds > 0 else None,
        "flops_per_second": rate,
        "share_of_peak": rate / (peak * trainer.args.world_size) if rate is not None and peak else None,
        "peak_memory_bytes": peak_memory(trainer.args.device),
        "cpu_seconds": round(time.process_time(), 2),
    }


def _work_of_steps(trainer: BFPOTrainer, rows: np.ndarray, steps: int) -> Work:
    """Work of a run's first steps, from that of every row ([rows, 3])."""
    planned = (step for epoch in range(steps) for step in trainer.plan.epoch(epoch))
    sums = np.zeros(3, dtype=np.int64)
    for step in islice(planned, steps):
        sums += rows[step].sum(axis=0)
    return Work(*sums.tolist())


def _peak(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for words, peak in _PEAKS.items() if re.search(rf"\b{words}\b", name)), None)


def peak_memory(device: torch.device) -> int | None:
    """Most memory held at once: on a GPU by tensors, otherwise resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    return getattr(psutil.Process().memory_info(), "peak_wset", None)
