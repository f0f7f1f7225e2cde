"""Ending a training run early: at a signal, with a checkpoint of the step that was running, or for want of progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from bfpo.stopping import NotedSignals, Stopped
from bfpo.training.checkpoints import CheckpointingTrainer


class StopEarly(EarlyStoppingCallback):
    """Early stopping that also stops a run resumed where it was to stop."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check the arguments, and whether the restored patience is at its end."""
        super().on_train_begin(args, state, control, **kwargs)
        control.should_training_stop = self.early_stopping_patience_counter >= self.early_stopping_patience


class CheckpointAtSignal(TrainerCallback):
    """After the step, or within the evaluation, in which a signal arrived at any process, save a checkpoint and stop.

    An evaluation that stops is done again when the run is resumed. The last step doesn't stop unless it is evaluated:
    the run is about to finish. The processes agree by the trainer's accelerator.
    """

    def __init__(self, noted: NotedSignals, trainer: CheckpointingTrainer) -> None:
        self.noted, self.trainer = noted, trainer
        self.number = 0
        # Last step with a checkpoint. A folder that one process makes may not be there yet for another.
        self.saved = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate the step that is resumed, if it was to be evaluated and wasn't."""
        step = self.saved = state.global_step
        # To keep the best, the Trainer evaluates the last step, too.
        is_last = args.load_best_model_at_end and step >= state.max_steps
        is_due = args.eval_strategy == IntervalStrategy.STEPS and step > 0 and (is_last or step % state.eval_steps == 0)
        if is_due and not any("eval_loss" in entry and entry["step"] == step for entry in state.log_history):
            self.trainer.evaluate_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Have the checkpoint saved, and the metrics since the last log kept."""
        if state.global_step < state.max_steps:
            self._agree()
        if self.number:
            control.should_save = control.should_log = True
            control.should_evaluate = False

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave an evaluation, with a checkpoint of its step, and the metrics since the last log kept.

        Raises:
            Stopped: if a signal arrived.
        """
        self._agree()
        if self.number:
            if self.saved != state.global_step:
                self.trainer.save_step()
            self._stop(args, state)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop, once the checkpoint is complete for all processes.

        Raises:
            Stopped: if a signal arrived, unless the run is about to finish.
        """
        self.saved = state.global_step
        # Early stopping may end the run here.
        if self.number and not control.should_training_stop:
            self._stop(args, state)

    def _folder(self, args: Any, state: Any) -> Path:
        return Path(args.output_dir) / f"checkpoint-{state.global_step}"

    def _stop(self, args: Any, state: Any) -> None:
        self.trainer.accelerator.wait_for_everyone()
        raise Stopped(self.number, f"{self._folder(args, state)} is saved")

    def _agree(self) -> None:
        accelerator = self.trainer.accelerator
        if not self.number:
            number = torch.tensor([self.noted.number or 0], device=accelerator.device)
            gathered: Any = accelerator.gather(number)
            self.number = int(gathered.max())
