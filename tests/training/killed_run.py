"""Run a recipe in processes that kill themselves (SIGKILL) at named moments; a script of test_resume.py.

Usage: killed_run.py STRAIGHT KILLED [MOMENT NUMBER]..., where the first recipe runs undisturbed, and the second in one
process after another, each of which resumes it and dies at the NUMBER-th time its moment comes; a last one runs to the
end. Prints, as JSON, how each process ended and which checkpoint it left to resume from.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch
from transformers import Trainer

from bfpo.training import checkpoints
from bfpo.training.checkpoints import newest_complete_checkpoint
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


def attempt(recipe: Path, moment: str | None, number: int) -> tuple[int, str | None]:
    """Resume the run in a forked process, so that imports run only once."""
    resolved = load_recipe(recipe)
    folder = Path(resolved.recipe.output_dir)
    process = os.fork()
    if process == 0:
        # Not the random state of the process before it.
        torch.seed()
        if moment is not None:
            die_at(moment, number)
        try:
            train(resolved, resume=folder.exists())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    newest = newest_complete_checkpoint(folder)
    return status, newest and newest.name


if __name__ == "__main__":
    torch.set_num_threads(1)
    straight, killed, *moments = sys.argv[1:]
    ends = [attempt(Path(straight), None, 0)]
    for moment, number in zip(moments[::2], moments[1::2], strict=True):
        ends.append(attempt(Path(killed), moment, int(number)))
    print(json.dumps([*ends, attempt(Path(killed), None, 0)]))
