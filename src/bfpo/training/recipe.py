"""Recipes: closed YAML files, each of which describes a whole training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, create_model

from bfpo.config import Closed, validated
from bfpo.errors import BfpoError
from bfpo.labeling.fitted import FittedLabeling, load_labeling
from bfpo.objectives.registry import option_types


class SourceRecipe(Closed):
    """One source of rows, with their selection and labels."""

    path: str = Field(description="a file, or the name of a data set on the Hub")
    name: str | None = Field(None, description="name in messages and records; by default the path")
    role: Literal["main", "buffer"] = Field("main", description="main rows define the epochs, buffer rows cycle")
    split: str = Field("train", description="split of a Hub data set")
    revision: str | None = Field(None, description="revision of a Hub data set; the commit it resolved to is recorded")
    columns: dict[str, str] | None = Field(None, description="columns to rename, from theirs to ours")
    unknown_safety: Literal["error", "drop"] | float | None = Field(
        None, description="treatment of rows without safety flags: error, drop, or a probability of being safe"
    )
    prefer: Literal["helpful", "safer", "safer_then_helpful"] = Field(
        "helpful", description="answer of a pair that counts as chosen (and that SFT trains on)"
    )
    fraction: float | None = Field(None, gt=0, le=1, description="seeded random share of the rows")
    limit: int | None = Field(None, ge=1, description="maximum number of seeded random rows")
    balance: Literal["repeat", "leave_out"] | None = Field(
        None, description="equal rows per safety cell, as many as the largest (repeat) or the smallest (leave_out) has"
    )
    weight: float | None = Field(None, gt=0, description="share of an epoch's rows, relative to its role's weights")
    seed: int | None = Field(None, ge=0, description="seed for subset, balance and draws; by default the recipe's")

    @property
    def label(self) -> str:
        """The name, by default the path."""
        return self.name or self.path


class LoraRecipe(Closed):
    """Settings of a LoRA adapter, as in ``peft.LoraConfig``."""

    r: int = Field(16, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


_OPTIONS: dict[str, Any] = {name: (kind | None, None) for name, kind in option_types().items()}
ObjectiveOptions = create_model("ObjectiveOptions", __base__=Closed, **_OPTIONS)


class Recipe(ObjectiveOptions):
    """All the settings of a training run; see docs/how-to/train.md."""

    stage: Literal["sft", "preference"]
    model: str = Field(description="folder, .gguf file or Hub name of the model to start from")
    model_revision: str | None = Field(None, description="revision of the model; the commit it resolved to is recorded")
    tokenizer: str | None = Field(None, description="folder or Hub name of the tokenizer; by default the model's")
    data: list[SourceRecipe] = Field(min_length=1)
    eval_data: SourceRecipe | None = None
    evaluation_prompts: list[str] = Field([], description="files with prompts that the training data must not contain")
    allow_overlap: list[str] = Field([], description="suites and files whose prompts the training data may contain")
    output_dir: str

    loss_type: str | None = Field(None, description="objective; by default bfpo, and sft in the sft stage")
    labeling: str | None = Field(None, description="b1 and alpha from a file of 'bfpo label --fit-preference'")

    trainable: str = Field("all", description="all, or a regular expression for parameter names")
    lora: LoraRecipe | None = None
    precision: Literal["fp32", "bf16"] | None = Field(None, description="by default bf16 on a GPU that supports it")
    gradient_checkpointing: bool = False

    batch_size: int = Field(64, ge=1, description="groups in a global step, buffer included")
    buffer_ratio: float = Field(1.0, gt=0, description="buffer groups for each main group of a step")
    micro_batch_tokens: int = Field(16_384, ge=1, description="largest number of tokens in the model at once")
    layout: Literal["auto", "shared", "packed", "padded"] = Field(
        "auto",
        description="the prompt once, once per answer, or one row per answer; auto: the fastest that is exact",
    )
    reference_cache: str | None = Field(
        "default", description="folder of cached reference log-probabilities; null to score them in every run"
    )
    max_length: int = Field(1024, ge=2, description="largest number of tokens in prompt and answer")
    num_train_epochs: float = Field(1.0, gt=0)
    max_steps: int = Field(-1, description="number of steps to stop after; -1 for whole epochs")
    learning_rate: float = Field(5e-7, gt=0)
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = Field(0.1, ge=0, description="number of steps; below 1, share of all steps")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    seed: int = Field(0, ge=0)

    logging_steps: int = Field(10, ge=1)
    save_steps: int | None = Field(None, ge=1, description="steps between checkpoints; by default none are saved")
    save_total_limit: int | None = Field(2, ge=1, description="number of complete checkpoints to keep")
    eval_steps: int | None = Field(None, ge=1, description="steps between evaluations")
    keep_best: bool = Field(False, description="keep the checkpoint with the lowest eval loss as the final model")
    report_to: str | list[str] = Field("none", description="trackers of transformers' Trainer, e.g. tensorboard")

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return self.loss_type or ("sft" if self.stage == "sft" else "bfpo")

    @property
    def objective_options(self) -> dict[str, Any]:
        """Options of the objective that are not None."""
        given = {name: getattr(self, name) for name in option_types()}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class ResolvedRecipe:
    """A checked recipe.

    Attributes:
        recipe: the recipe.
        origins: origin of each of its values: recipe, command line or default.
        labeling: the fitted labeling that it names, if any.
    """

    recipe: Recipe
    origins: dict[str, str]
    labeling: FittedLabeling | None

    @property
    def objective_options(self) -> dict[str, Any]:
        """Options of the objective, including those of the fitted labeling."""
        fitted = self.labeling and {"b1": self.labeling.preference.b1, "alpha": self.labeling.preference.alpha}
        return self.recipe.objective_options | (fitted or {})


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> ResolvedRecipe:
    """Read a recipe from a YAML file, with ``key=value`` overrides from the command line.

    Raises:
        BfpoError: if the file can't be read, or a key or value is wrong; the message names all of them.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BfpoError(f"{path}: no such recipe; 'bfpo recipe list' shows the packaged ones") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BfpoError(f"{path}: can't be read as a recipe ({error})") from error
    except yaml.YAMLError as error:
        raise BfpoError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BfpoError(f"{path}: a recipe is a mapping of keys to values, such as 'stage: preference'")
    given = dict.fromkeys(values, "recipe")
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise BfpoError(f"--set {override}: write it as key=value, for example --set beta=0.1")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise BfpoError(f"--set {override}: the value is not valid YAML") from error
        given[key] = "command line"
    return resolve(values, given, str(path))


def resolve(values: Mapping[str, Any], given: Mapping[str, str], where: str) -> ResolvedRecipe:
    """Check the values of a recipe and note the origin of each.

    Raises:
        BfpoError: if a key or value is wrong, or contradicts another, or the fitted labeling can't be read.
    """
    recipe = validated(Recipe, _floats(values), where)
    contradiction = _contradiction(recipe)
    if contradiction:
        raise BfpoError(f"{where}: {contradiction}")
    labeling = load_labeling(Path(recipe.labeling)) if recipe.labeling else None
    return ResolvedRecipe(recipe, {key: given.get(key, "default") for key in Recipe.model_fields}, labeling)


def _contradiction(recipe: Recipe) -> str | None:
    labels = [source.label for source in recipe.data]
    if len(set(labels)) < len(labels):
        return "two sources have the same name: give each its own 'name'"
    for role in ("main", "buffer"):
        weights = [source.weight for source in recipe.data if source.role == role]
        if None in weights and len(set(weights)) > 1:
            return f"some {role} sources have a 'weight' and some have none: give one to each of them"
    if recipe.eval_data and recipe.eval_data.weight is not None:
        return "'eval_data' has a 'weight', but it is no part of the blend: remove it"
    if all(source.role == "buffer" for source in recipe.data):
        return "every source is a buffer: at least one must have 'role: main'"
    if (recipe.stage == "sft") != (recipe.objective == "sft"):
        return f"stage {recipe.stage!r} doesn't go with loss_type {recipe.objective!r}"
    if recipe.labeling and {"b1", "alpha"} & recipe.objective_options.keys():
        return "'labeling' sets b1 and alpha: leave them out, or leave out 'labeling'"
    if recipe.labeling and recipe.objective != "bfpo":
        return f"loss_type {recipe.objective!r} does not read 'labeling': remove it"
    if recipe.lora and recipe.trainable != "all":
        return "'lora' and 'trainable' both select the trainable weights: give only one"
    if (recipe.eval_steps or recipe.keep_best) and recipe.eval_data is None:
        return "'eval_steps' and 'keep_best' need 'eval_data'"
    if recipe.keep_best and not (recipe.eval_steps and recipe.save_steps == recipe.eval_steps):
        return "'keep_best' needs 'eval_steps' and a 'save_steps' equal to it"
    return None


def _floats(value: Any) -> Any:
    """Convert numbers such as 5e-7, which YAML 1.1 reads as text because they have no dot."""
    if isinstance(value, dict):
        return {key: _floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_floats(item) for item in value]
    if isinstance(value, str) and "e" in value.lower() and value[:1].isdigit():
        try:
            return float(value)
        except ValueError:
            return value
    return value
