"""`train`: load a recipe's data and model, train, save a model folder, and record the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from bfpo.engine.trainable import check_mergeable
from bfpo.errors import BfpoError
from bfpo.files import explained_full_disk, sole_user
from bfpo.preferences.encoding import tokenizer_digest
from bfpo.preferences.harm import SEVERITY_LEVELS
from bfpo.stopping import is_main_process, noted_signals
from bfpo.training.checkpoints import step_of
from bfpo.training.config import BFPOConfig
from bfpo.training.earlier_run import EarlierRun, check_length, check_same_inputs, earlier_run
from bfpo.training.engines import check_not_sharded, process_record
from bfpo.training.expected import compared, last_metrics
from bfpo.training.model_card import write_card
from bfpo.training.preemption import CheckpointAtSignal, StopEarly
from bfpo.training.recipe import Recipe, ResolvedRecipe, load_recipe
from bfpo.training.recipe_data import load_blend
from bfpo.training.run_record import config_record, describe_run, write_record
from bfpo.training.starting_model import (
    check_4bit_training,
    load_starting_model,
    recipe_tokenizer,
    remove_base,
    uses_bf16,
)
from bfpo.training.trainer import BFPOTrainer
from bfpo.training.usage import usage
from bfpo.versions import versions

# Settings of a recipe that are arguments of the trainer under the same names.
_SAME_NAMES = (
    "output_dir", "max_length", "trainable", "buffer_ratio", "micro_batch_tokens", "layout", "reference_cache",
    "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "optim", "optim_args",
    "adam_beta1", "adam_beta2", "adam_epsilon", "warmup_steps", "weight_decay", "max_grad_norm", "seed",
    "logging_steps", "save_total_limit", "eval_steps", "report_to",
)  # fmt: skip


@dataclass(frozen=True)
class TrainedRun:
    """The folder of a finished run, its last metrics, and how long it took (0 s if it was finished before)."""

    folder: Path
    metrics: dict[str, float]
    seconds: float


def train(
    recipe: ResolvedRecipe | Path | str,
    *,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    say: Callable[[str], None] = lambda line: None,
    reference_progress: Callable[[int, int], None] | None = None,
    suites: Mapping[str, Sequence[str]] | None = None,
) -> TrainedRun:
    """Run a recipe, and save the model (or its adapter) and ``run.json`` in its output folder.

    Args:
        recipe: a recipe file, or the result of `load_recipe`.
        resume: whether to resume from the newest complete checkpoint, if there is one.
        callbacks: callbacks for transformers' Trainer.
        say: function called with each line about the data and its preparation, before training starts.
        reference_progress: function called with the numbers of answers scored and to score for the reference.
        suites: evaluation prompts by the name of their suite, which the training data must not contain.

    Raises:
        BfpoError: if the recipe, the data or the output folder is unsuitable.
        RunError: if training fails: a loss that isn't finite, too little memory, a full disk.
        Stopped: if the process is asked to end (SIGTERM, Ctrl-C) while it trains, after a checkpoint of the step.
    """
    resolved = recipe if isinstance(recipe, ResolvedRecipe) else load_recipe(Path(recipe))
    folder = Path(resolved.recipe.output_dir)
    if folder.exists() and not folder.is_dir():
        raise BfpoError(f"output_dir: {folder} is a file; choose a folder")
    with sole_user(folder) if is_main_process() else nullcontext():
        return _train(resolved, resume, callbacks, say, reference_progress, suites)


def _train(
    resolved: ResolvedRecipe,
    resume: bool,
    callbacks: Sequence[TrainerCallback],
    say: Callable[[str], None],
    reference_progress: Callable[[int, int], None] | None,
    suites: Mapping[str, Sequence[str]] | None,
) -> TrainedRun:
    started, folder = time.monotonic(), Path(resolved.recipe.output_dir)
    if not is_main_process():
        say, reference_progress = lambda line: None, None
    record: dict[str, Any] = {"config": config_record(resolved), "versions": versions(), "finished": False}
    record["processes"] = process_record()
    _check_adapter(resolved.recipe)
    earlier = earlier_run(folder, record["config"], record["processes"], resume)
    if earlier and earlier.is_finished:
        say(f"{folder}: the run is finished, so there is nothing to resume")
        return TrainedRun(folder, _last_metrics(earlier.record.get("log", [])), 0.0)
    if not earlier and is_main_process():
        remove_base(folder)
    trainer = build_trainer(resolved, record, callbacks, suites, say, reference_progress, is_resumed=bool(earlier))
    if earlier:
        _continue(trainer, earlier, record)
    prepared = time.monotonic()
    if trainer.is_world_process_zero():
        trainer.add_callback(_RecordAtFirstStep(folder, record))
        for line in describe_run(record):
            say(line)
    with explained_full_disk(folder), noted_signals() as noted:
        trainer.add_callback(CheckpointAtSignal(noted, trainer))
        trainer.train(resume_from_checkpoint=resume)
        trained = time.monotonic()
        _evaluate_at_end(trainer, resolved.recipe)
        if trainer.is_world_process_zero():
            resumed_at = step_of(earlier.checkpoint) if earlier and earlier.checkpoint else 0
            record["usage"] = usage(trainer, resumed_at, trained - prepared)
        record["seconds"] = {"prepare": round(prepared - started, 2), "train": round(trained - prepared, 2)}
        _save(trainer, resolved, record)
    trainer.accelerator.wait_for_everyone()
    for figure in compared(resolved.recipe.expected, last_metrics(trainer.state.log_history)):
        if figure.found is not None:  # an evaluation measures the others
            say(str(figure))
    return TrainedRun(folder, _last_metrics(trainer.state.log_history), time.monotonic() - started)


def _check_adapter(recipe: Recipe) -> None:
    """Refuse to merge an adapter into weights that are divided, and weights in 4 bits where they aren't possible."""
    if recipe.merge_adapter:
        remedy = "leave it out, and merge the saved adapter later (merge_and_unload of PEFT)"
        check_not_sharded("merge_adapter can't merge into weights", remedy)
    check_4bit_training(recipe)


def build_trainer(
    resolved: ResolvedRecipe,
    record: dict[str, Any],
    callbacks: Sequence[TrainerCallback],
    suites: Mapping[str, Sequence[str]] | None = None,
    say: Callable[[str], None] = lambda line: None,
    reference_progress: Callable[[int, int], None] | None = None,
    is_resumed: bool = False,
) -> BFPOTrainer:
    """Load data and model, score the reference, and add the details to the record."""
    recipe = resolved.recipe
    arguments = training_arguments(resolved)
    arguments.check()
    say("loading the data")
    loaded = load_blend(resolved, suites)
    record["data"] = loaded.records
    if loaded.evaluation:
        record["eval_data"] = loaded.evaluation.record
    say(f"loading {recipe.model}")
    start = load_starting_model(recipe, is_resumed=is_resumed)
    stopping = recipe.early_stopping_patience
    trainer = BFPOTrainer(
        start.model,
        arguments,
        loaded.blend,
        loaded.evaluation.blend if loaded.evaluation else None,
        processing_class=recipe_tokenizer(recipe),
        peft_config=start.new_adapter,
        callbacks=[*callbacks, *([StopEarly(stopping)] if stopping else [])],
        reference_progress=reference_progress,
    )
    if recipe.merge_adapter:
        adapted: Any = trainer.model
        check_mergeable(adapted, "leave merge_adapter out, or 'lm_head' and 'embed_tokens' out of target_modules")
    trainer.remove_callback(PrinterCallback)
    tokenizer: Any = trainer.processing_class
    record["model"] = start.record | {
        "digest": trainer.starting_digest,
        "tokenizer_digest": tokenizer_digest(tokenizer),
    }
    data, plan = trainer.training_data, trainer.plan
    record["mix"] = {
        "main_groups": data.main,
        "buffer_groups": data.buffer,
        "steps_per_epoch": plan.steps_per_epoch,
        "main_groups_per_step": plan.main_per_step,
        "groups_per_step": plan.batch_size,
        "first_steps": plan.first,
        "encoding": {name: asdict(counts) for name, counts in data.counts.items()},
    }
    record["layout"] = asdict(trainer.layout) | {"micro_batch_tokens": trainer.engine.max_tokens}
    record["reference"] = asdict(trainer.reference)
    if resolved.labeling:
        record["labeling"] = {"file": recipe.labeling, **resolved.labeling.as_json()}
    if resolved.harm_prices:
        record["harm_prices"] = {**asdict(resolved.harm_prices), "levels_of_severities": SEVERITY_LEVELS}
    record["objective"] = {"name": recipe.objective} | asdict(trainer.objective)  # pyright: ignore[reportArgumentType]
    return trainer


def _continue(trainer: BFPOTrainer, earlier: EarlierRun, record: dict[str, Any]) -> None:
    """Continue the steps of an earlier run in their order, and record what the recipe changed."""
    check_same_inputs(earlier, record)
    check_length(earlier, trainer.total_steps)
    resumed = {"checkpoint": earlier.checkpoint and earlier.checkpoint.name, "changed": earlier.changed}
    record["resumed"] = [*earlier.record.get("resumed", []), resumed]


def _evaluate_at_end(trainer: BFPOTrainer, recipe: Recipe) -> None:
    """Evaluate the trained model, unless its last step was evaluated, or the best checkpoint is kept."""
    state = trainer.state
    is_done = any("eval_loss" in entry and entry["step"] == state.global_step for entry in state.log_history)
    if trainer.eval_dataset is not None and not is_done and not recipe.keep_best:
        trainer.evaluate()


def _save(trainer: BFPOTrainer, resolved: ResolvedRecipe, record: dict[str, Any]) -> None:
    """Save the trained model with its card, and last the record, which says that the run is finished."""
    folder = Path(resolved.recipe.output_dir)
    if resolved.recipe.merge_adapter:
        # The merged model takes the place of the trainer's.
        adapted: Any = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        trainer.model = trainer.model_wrapped = adapted.merge_and_unload()
    trainer.save_model(str(folder))
    record |= {"finished": True, "steps": trainer.state.global_step, "log": trainer.state.log_history}
    if trainer.is_world_process_zero():
        write_card(folder, record)
        write_record(folder, record)


class _RecordAtFirstStep(TrainerCallback):
    """Writes ``run.json`` after the first step, so that a run that fails before it leaves no trace of one."""

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        self.folder, self.record, self.written = folder, record, False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the record once."""
        if not self.written:
            write_record(self.folder, self.record)
            self.written = True


def _last_metrics(log: Sequence[dict[str, float]]) -> dict[str, float]:
    return next((entry for entry in reversed(log) if "loss" in entry), {})


def training_arguments(resolved: ResolvedRecipe) -> BFPOConfig:
    """The trainer's arguments from a recipe."""
    recipe = resolved.recipe
    return BFPOConfig(
        **{name: getattr(recipe, name) for name in _SAME_NAMES},
        **resolved.objective_options,
        loss_type=recipe.objective,
        global_batch_size=recipe.batch_size,
        bf16=uses_bf16(recipe),
        use_cpu=not torch.accelerator.is_available(),
        activation_checkpointing=recipe.gradient_checkpointing,
        save_strategy="steps" if recipe.save_steps else "no",
        save_steps=recipe.save_steps or 500,
        eval_strategy="steps" if recipe.eval_steps else "no",
        load_best_model_at_end=recipe.keep_best,
        # The patience of early stopping.
        restore_callback_states_from_checkpoint=True,
        disable_tqdm=True,
    )
