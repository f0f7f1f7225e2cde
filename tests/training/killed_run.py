"""A run that sends itself a signal at a named moment; called in processes of their own."""

import os
import signal
from pathlib import Path

from transformers import Trainer

from bfpo.training import checkpoints, run
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train
from bfpo.training.trainer import BFPOTrainer
from support import warm

MOMENTS = {
    "before the data": (run, "load_blend"),
    "before a step": (BFPOTrainer, "training_step"),
    "in an evaluation": (BFPOTrainer, "evaluation_loop"),
    "before the model is saved": (run, "_save"),
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
        signal_at(*moment, signal.SIGKILL)
    train(resolved, resume=Path(resolved.recipe.output_dir).exists())


def signal_at(moment: str, number: int, sent: signal.Signals) -> None:
    """Send this process a signal at the given time that a moment comes."""
    owner, name = MOMENTS[moment]
    original = getattr(owner, name)
    calls = 0

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), sent)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def resume_and_signal(recipe: Path, moment: tuple[str, int] | None, sent: signal.Signals) -> None:
    """The command ``bfpo train RECIPE --resume``, which is sent a signal at a moment."""
    if moment is not None:
        signal_at(*moment, sent)
    warm.command("train", str(recipe), "--resume")
