"""Checkpoints: writing, completeness markers, and resuming from the newest complete one."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy, rotate_checkpoints

from bfpo.config import read_json
from bfpo.errors import BfpoError
from bfpo.files import file_sha256, write_json
from bfpo.training.finite import check_finite_weights

MARKER, BEGUN = "complete", "begun"
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
_Value = TypeVar("_Value")


class CheckpointingTrainer(Trainer):
    """A Trainer that saves finite weights only, pickles no arguments, and marks each checkpoint once it is complete."""

    def train(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> Any:
        """Train; ``resume_from_checkpoint=True`` resumes from the newest *complete* checkpoint, if there is one."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = from_main(partial(_checkpoint_to_resume, Path(str(self.args.output_dir))))
        elif resume_from_checkpoint:
            from_main(partial(check_intact, Path(resume_from_checkpoint), own=False))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _init_training_state(self, max_steps: int, *arguments: Any, **options: Any) -> tuple[int, int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Restore the state, with the intervals of this run instead of those that the checkpoint was saved with."""
        found = super()._init_training_state(max_steps, *arguments, **options)
        self.state.compute_steps(self.args, max_steps)
        return found

    def _maybe_log_save_evaluate(self, *arguments: Any, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """End a step as the Trainer does, but with a log after the last one too.

        An evaluation that is left can end it again, by `save_step`.
        """
        if self.state.global_step >= self.state.max_steps and self.args.logging_strategy != IntervalStrategy.NO:
            self.control.should_log = True
        self._end_step = partial(super()._maybe_log_save_evaluate, *arguments, **options)
        self._end_step()

    def save_step(self) -> None:
        """End the current step without its evaluation: log the metrics since the last log, and save a checkpoint."""
        self.control.should_log = self.control.should_save = True
        self.control.should_evaluate = False
        self._end_step()

    def evaluate_step(self) -> None:
        """Evaluate a resumed step, with a checkpoint, as if the run had not stopped before."""
        if self._determine_best_metric(self._evaluate(None, None), None):
            name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            self.state.best_model_checkpoint = str(Path(self._get_output_dir(trial=None)) / name)

    def _run_epoch(self, **arguments: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run an epoch's steps; none if a resumed run has taken all of its steps, or is to stop early.

        The Trainer would take one more.
        """
        if self.state.global_step < self.state.max_steps and not self.control.should_training_stop:
            super()._run_epoch(**arguments)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model (with LoRA only the adapter) and its tokenizer, under bf16 in bfloat16.

        Raises:
            RunError: if a weight isn't finite; nothing is saved.
        """
        if _internal_call:  # a checkpoint, which needs the precision of training
            super().save_model(output_dir, _internal_call)
            return
        state: dict[str, Any] = self.accelerator.get_state_dict(self.model_wrapped)
        # The others would wait for a main process that fails alone.
        from_main(partial(check_finite_weights, state))
        if not self.is_world_process_zero():
            return
        model: Any = self.accelerator.unwrap_model(self.model_wrapped)
        if isinstance(model, PreTrainedModel):
            # Gathered or converted weights no longer share memory, by which tied ones are told.
            tied = dict(model.named_parameters(remove_duplicate=False)).keys() - dict(model.named_parameters())
            state = {name: value for name, value in state.items() if name not in tied}
        if self.args.bf16:
            # What isn't a floating point number is a weight in 4 bits, or its scale.
            state = {name: v.to(torch.bfloat16) if v.is_floating_point() else v for name, v in state.items()}
        folder = Path(output_dir or str(self.args.output_dir))
        model.save_pretrained(folder, state_dict=state)
        if self.args.bf16 and isinstance(model, PreTrainedModel):
            # It was written with the type of the weights in training.
            config = copy.deepcopy(model.config)
            config.dtype = torch.bfloat16
            config.save_pretrained(folder)
        assert self.processing_class is not None
        self.processing_class.save_pretrained(folder)  # pyright: ignore[reportAttributeAccessIssue]

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save as the Trainer does, then remove the pickled arguments."""
        super()._save(output_dir, state_dict)
        (Path(output_dir or str(self.args.output_dir)) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _load_best_model(self) -> None:
        """Load the best checkpoint as the Trainer does, unless it is damaged."""
        if self.state.best_model_checkpoint:
            from_main(partial(check_intact, Path(self.state.best_model_checkpoint), own=False))
        super()._load_best_model()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save as the Trainer does, mark the checkpoint complete, and only then delete older ones."""
        if self.args.should_save:
            mark_begun(Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial))
            mark_complete(folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            rotate_checkpoints(
                output_dir=str(folder),
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=False,
            )


def from_main(compute: Callable[[], _Value]) -> _Value:
    """What the main process computes, in every process, or its error: all others wait for one of the two."""
    outcome: list[Any] = [None, None]
    if PartialState().is_main_process:
        try:
            outcome[0] = compute()
        except Exception as error:
            outcome[1] = error
    value, error = broadcast_object_list(outcome)
    if error is not None:
        raise error
    return value


def _checkpoint_to_resume(folder: Path) -> str | None:
    """The newest complete checkpoint, which is intact, after incomplete ones were removed; None to start anew."""
    newest = newest_complete_checkpoint(folder)
    if newest:
        check_intact(newest)
    check_own(folder)
    remove_incomplete_checkpoints(folder)
    return str(newest) if newest else None


def mark_begun(checkpoint: Path) -> None:
    """Mark a folder as a checkpoint that is being written, which may be deleted if that never ends."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / MARKER).unlink(missing_ok=True)
    (checkpoint / BEGUN).touch()


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as complete, by the SHA-256 of each of its files."""
    write_json(checkpoint / MARKER, _digests(checkpoint))
    (checkpoint / BEGUN).unlink(missing_ok=True)


def check_own(folder: Path) -> None:
    """Refuse to continue in a folder with checkpoints that others wrote, which would be taken for incomplete ones.

    Raises:
        BfpoError: if there is one.
    """
    for path in _checkpoints(folder):
        if not any((path / name).exists() for name in (MARKER, BEGUN)) and any(path.iterdir()):
            raise BfpoError(
                f"{path}: this checkpoint wasn't written by bfpo, which can't tell whether it is complete; move "
                "it, or choose another output_dir"
            )


def check_intact(checkpoint: Path, *, own: bool = True) -> None:
    """Check the files of a complete checkpoint against their digests; with ``own`` false, one of others has none.

    Raises:
        BfpoError: if it is incomplete, a file is missing or has changed, or the digests can't be read.
    """
    if (checkpoint / BEGUN).exists() and not (checkpoint / MARKER).exists():
        raise BfpoError(f"{checkpoint}: the checkpoint is incomplete; name an earlier one")
    if not own and not (checkpoint / MARKER).exists():
        return
    remedy = "delete this folder to continue from an earlier checkpoint, or from the start"
    marked = read_json(checkpoint / MARKER, dict[str, str], "the marker of a checkpoint", remedy)
    found = _digests(checkpoint)
    damaged = sorted(name for name, digest in marked.items() if found.get(name) != digest)
    if damaged:
        raise BfpoError(f"{checkpoint}: {', '.join(damaged)} changed since the checkpoint was saved; {remedy}")


def _digests(checkpoint: Path) -> dict[str, str]:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name not in (MARKER, BEGUN))
    return {path.relative_to(checkpoint).as_posix(): file_sha256(path) for path in files}


def newest_complete_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps, or None."""
    complete = [path for path in _checkpoints(folder) if (path / MARKER).exists()]
    return max(complete, key=step_of, default=None)


def remove_incomplete_checkpoints(folder: Path) -> list[Path]:
    """Delete incomplete checkpoints of a killed run, and return their paths."""
    incomplete = [path for path in _checkpoints(folder) if not (path / MARKER).exists()]
    for path in incomplete:
        shutil.rmtree(path)
    return incomplete


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]


def step_of(checkpoint: Path) -> int:
    """The number of steps that a checkpoint has taken, by its name."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1])
