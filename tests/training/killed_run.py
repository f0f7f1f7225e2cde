"""Run a recipe in a process that kills itself (SIGKILL) at a named moment; a script of test_resume.py.

Usage: killed_run.py RECIPE MOMENT NUMBER, where the process dies at the NUMBER-th time the moment comes.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from transformers import Trainer

from bfpo.training import checkpoints
from bfpo.training.recipe import load_recipe
from bfpo.training.run import run_recipe
from bfpo.training.trainer import BFPOTrainer

MOMENTS = {
    "before a step": (BFPOTrainer, "training_step"),
    "before the weights are saved": (Trainer, "save_model"),
    "before the optimizer is saved": (Trainer, "_save_optimizer_and_scheduler"),
    "before the random state is saved": (Trainer, "_save_rng_state"),
    "before the marker": (checkpoints, "mark_complete"),
    "before old checkpoints go": (checkpoints, "rotate_checkpoints"),
}


def die_at(moment: str, number: int) -> None:
    owner, name = MOMENTS[moment]
    original = getattr(owner, name)
    calls = 0

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


if __name__ == "__main__":
    torch.set_num_threads(1)
    recipe, moment, number = sys.argv[1:]
    if moment != "never":
        die_at(moment, int(number))
    resolved = load_recipe(Path(recipe))
    folder = Path(resolved.recipe.output_dir)
    run_recipe(resolved, resume=folder.exists())
