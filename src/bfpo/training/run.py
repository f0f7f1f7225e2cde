"""`train`: load a recipe's data and model, train, save a model folder, and record the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback

from bfpo.errors import BfpoError
from bfpo.models import load_model, load_tokenizer, resolved_revision
from bfpo.training.checkpoints import newest_complete_checkpoint
from bfpo.training.config import BFPOConfig
from bfpo.training.recipe import Recipe, ResolvedRecipe, load_recipe
from bfpo.training.recipe_data import load_blend, load_source
from bfpo.training.run_record import config_record, describe_data, read_record, write_record
from bfpo.training.trainer import BFPOTrainer
from bfpo.versions import versions


@dataclass(frozen=True)
class TrainedRun:
    """The folder of a finished run, and its last metrics."""

    folder: Path
    metrics: dict[str, float]
    seconds: float


def train(
    recipe: ResolvedRecipe | Path | str,
    *,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    say: Callable[[str], None] = lambda line: None,
    suites: Mapping[str, Sequence[str]] | None = None,
) -> TrainedRun:
    """Run a recipe, and save the model (or its adapter) and ``run.json`` in its output folder.

    Args:
        recipe: a recipe file, or the result of `load_recipe`.
        resume: whether to resume from the newest complete checkpoint, if there is one.
        callbacks: callbacks for transformers' Trainer.
        say: function called with each line about the data and its preparation, before training starts.
        suites: evaluation prompts by the name of their suite, which the training data must not contain.

    Raises:
        BfpoError: if the recipe, the data or the output folder is unsuitable.
    """
    started = time.monotonic()
    resolved = recipe if isinstance(recipe, ResolvedRecipe) else load_recipe(Path(recipe))
    folder = Path(resolved.recipe.output_dir)
    record = {"config": config_record(resolved), "versions": versions(), "finished": False}
    _check_folder(folder, record, resume)
    trainer = build_trainer(resolved, record, callbacks, suites)
    prepared = time.monotonic()
    if trainer.is_world_process_zero():
        write_record(folder, record)
        for line in describe_data(record):
            say(line)
    trainer.train(resume_from_checkpoint=resume)
    trained = time.monotonic()
    _export(trainer, folder, weights_dtype(resolved.recipe))
    metrics = [entry for entry in trainer.state.log_history if "loss" in entry]
    record |= {
        "finished": True,
        "seconds": {"prepare": round(prepared - started, 2), "train": round(trained - prepared, 2)},
        "steps": trainer.state.global_step,
        "log": trainer.state.log_history,
    }
    if trainer.is_world_process_zero():
        write_record(folder, record)
    trainer.accelerator.wait_for_everyone()
    return TrainedRun(folder, metrics[-1] if metrics else {}, time.monotonic() - started)


def build_trainer(
    resolved: ResolvedRecipe,
    record: dict[str, Any],
    callbacks: Sequence[TrainerCallback],
    suites: Mapping[str, Sequence[str]] | None = None,
) -> BFPOTrainer:
    """Load data and model, score the reference, and add the details to the record."""
    recipe = resolved.recipe
    blend, sources = load_blend(resolved, suites)
    evaluation = recipe.eval_data and load_source(recipe.eval_data, recipe.stage, recipe.seed, resolved.labeling)
    # On the CPU, because the trainer moves the model or its shards.
    model = load_model(
        recipe.model, revision=recipe.model_revision, dtype=weights_dtype(recipe), device=torch.device("cpu")
    )
    tokenizer = recipe_tokenizer(recipe)
    record |= {"model": model_record(model, recipe), "data": sources}
    if evaluation:
        record["eval_data"] = evaluation.record
    trainer = BFPOTrainer(
        model,
        training_arguments(resolved),
        blend,
        evaluation.source.rows if evaluation else None,
        processing_class=tokenizer,
        peft_config=LoraConfig(**recipe.lora.model_dump(), task_type="CAUSAL_LM") if recipe.lora else None,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    data, plan = trainer.training_data, trainer.plan
    record["mix"] = {
        "main_groups": data.main,
        "buffer_groups": data.buffer,
        "steps_per_epoch": plan.steps_per_epoch,
        "main_groups_per_step": plan.main_per_step,
        "groups_per_step": plan.batch_size,
        "encoding": {name: asdict(counts) for name, counts in data.counts.items()},
    }
    record["layout"] = asdict(trainer.layout)
    record["reference"] = asdict(trainer.reference)
    if resolved.labeling:
        record["labeling"] = {"file": recipe.labeling, **resolved.labeling.as_json()}
    record["objective"] = {"name": recipe.objective} | asdict(trainer.objective)  # pyright: ignore[reportArgumentType]
    return trainer


def _check_folder(folder: Path, record: dict[str, Any], resume: bool) -> None:
    earlier = read_record(folder)
    if not resume:
        if earlier or newest_complete_checkpoint(folder):
            raise BfpoError(f"{folder}: contains another run; continue it with --resume, or choose another output_dir")
        return
    if earlier and earlier["config"] != record["config"]:
        changed = [key for key, value in record["config"].items() if earlier["config"].get(key) != value]
        raise BfpoError(
            f"{folder}: the run to resume was started with another value of {', '.join(changed)}; "
            "set it back, or choose another output_dir"
        )


def recipe_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer that a recipe names, by default its model's at the model's revision."""
    if recipe.tokenizer:
        return load_tokenizer(recipe.tokenizer)
    return load_tokenizer(recipe.model, revision=recipe.model_revision)


def model_record(model: PreTrainedModel, recipe: Recipe) -> dict[str, Any]:
    """The record of a model: name, revision, architecture and size."""
    return {
        "name": model.config.name_or_path,
        "revision": resolved_revision(recipe.model, recipe.model_revision),
        "architecture": type(model).__name__,
        "parameters": model.num_parameters(),
    }


def uses_bf16(recipe: Recipe) -> bool:
    """Whether a recipe trains in bf16 on this machine."""
    if recipe.precision is None:
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return recipe.precision == "bf16"


def weights_dtype(recipe: Recipe) -> torch.dtype:
    """The dtype for loading and saving weights."""
    return torch.bfloat16 if uses_bf16(recipe) else torch.float32


def training_arguments(resolved: ResolvedRecipe) -> BFPOConfig:
    """The trainer's arguments from a recipe."""
    recipe = resolved.recipe
    return BFPOConfig(
        output_dir=recipe.output_dir,
        loss_type=recipe.objective,
        **resolved.objective_options,
        max_length=recipe.max_length,
        trainable=recipe.trainable,
        buffer_ratio=recipe.buffer_ratio,
        global_batch_size=recipe.batch_size,
        micro_batch_tokens=recipe.micro_batch_tokens,
        layout=recipe.layout,
        reference_cache=recipe.reference_cache,
        bf16=uses_bf16(recipe),
        use_cpu=not torch.accelerator.is_available(),
        activation_checkpointing=recipe.gradient_checkpointing,
        num_train_epochs=recipe.num_train_epochs,
        max_steps=recipe.max_steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        seed=recipe.seed,
        logging_steps=recipe.logging_steps,
        save_strategy="steps" if recipe.save_steps else "no",
        save_steps=recipe.save_steps or 500,
        save_total_limit=recipe.save_total_limit,
        eval_strategy="steps" if recipe.eval_steps else "no",
        eval_steps=recipe.eval_steps,
        load_best_model_at_end=recipe.keep_best,
        report_to=recipe.report_to,
        disable_tqdm=True,
    )


def _export(trainer: BFPOTrainer, folder: Path, dtype: torch.dtype) -> None:
    """Save model (with LoRA only the adapter) and tokenizer by ``save_pretrained``."""
    state: dict[str, Any] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        model: Any = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        state = {name: value.to(dtype) for name, value in state.items()}
        model.save_pretrained(folder, state_dict=state)
        assert trainer.processing_class is not None
        trainer.processing_class.save_pretrained(folder)  # pyright: ignore[reportAttributeAccessIssue]
