"""A run that kills itself (SIGKILL) at a named moment; called in processes of their own by test_resume.py."""

import os
import signal
from pathlib import Path

from transformers import Trainer

from bfpo.training import checkpoints
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train
from bfpo.training.trainer import BFPOTrainer

MOMENTS = {
    "before a step": (BFPOTrainer, "training_step"),
    "before the weights are saved": (Trainer, "save_model"),
    "before the optimizer is saved": (Trainer, "_save_optimizer_and_scheduler"),
    "before the random state is saved": (Trainer, "_save_rng_state"),
    "before the marker": (checkpoints, "mark_complete"),
    "before old checkpoints go": (checkpoints, "rotate_checkpoints"),
}


def resume_and_die(recipe: Path, moment: tuple[str, int] | None) -> None:
    """Resume the recipe's run, or start it, and die at the given time that a moment comes; None ends the run."""
    resolved = load_recipe(recipe)
    if moment is not None:
        _die_at(*moment)
    train(resolved, resume=Path(resolved.recipe.output_dir).exists())


def _die_at(moment: str, number: int) -> None:
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
