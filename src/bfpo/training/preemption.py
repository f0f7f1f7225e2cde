"""Ending a training run at a signal, with a checkpoint of the step that was running."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import TrainerCallback

from bfpo.stopping import NotedSignals, Stopped


class CheckpointAtSignal(TrainerCallback):
    """After the step (or the evaluation) in which a signal arrived at any process, save a checkpoint and stop.

    The last step doesn't stop: the run is about to finish. The processes agree by the trainer's accelerator.
    """

    def __init__(self, noted: NotedSignals, accelerator: Accelerator) -> None:
        self.noted, self.accelerator = noted, accelerator
        self.number = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Have the checkpoint saved, and the metrics since the last log kept."""
        self._agree(state)
        if self.number:
            control.should_save = control.should_log = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A signal during the evaluation that follows a step: the checkpoint of this step."""
        self._agree(state)
        if self.number:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop, once the checkpoint is complete for all processes.

        Raises:
            Stopped: if a signal arrived, unless the run is about to finish.
        """
        # Early stopping may end the run here.
        if self.number and not control.should_training_stop:
            self.accelerator.wait_for_everyone()
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            raise Stopped(self.number, f"{folder} is saved")

    def _agree(self, state: Any) -> None:
        if self.number or state.global_step >= state.max_steps:
            return
        number = torch.tensor([self.noted.number or 0], device=self.accelerator.device)
        gathered: Any = self.accelerator.gather(number)
        self.number = int(gathered.max())
