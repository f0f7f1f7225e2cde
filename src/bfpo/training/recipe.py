"""Recipes: one closed YAML file describes a whole training run."""

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
    """One source of rows, and how they are selected and labeled."""

    path: str = Field(description="a file, or the name of a data set on the Hub")
    name: str | None = Field(None, description="name in messages and records; by default the path")
    role: Literal["main", "buffer"] = Field("main", description="main rows make up the epochs, a buffer cycles")
    split: str = Field("train", description="split of a Hub data set")
    revision: str | None = Field(None, description="revision of a Hub data set; the commit it resolved to is recorded")
    columns: dict[str, str] | None = Field(None, description="columns to rename, theirs: ours")
    unknown_safety: Literal["error", "drop"] | float | None = Field(
        None, description="rows without safety flags: an error, dropped, or this probability of being safe"
    )
    prefer: Literal["helpful", "safer", "safer_then_helpful"] = Field(
        "helpful", description="which answer of a pair counts as chosen (and is trained on by SFT)"
    )
    fraction: float | None = Field(None, gt=0, le=1, description="seeded random share of the rows")
    limit: int | None = Field(None, ge=1, description="maximum number of seeded random rows")
    balance: Literal["repeat", "leave_out"] | None = Field(
        None, description="as many rows of every safety cell as the largest has (repeat) or the smallest (leave_out)"
    )
    weight: float | None = Field(None, gt=0, description="share of an epoch's rows, against its role's other weights")
    seed: int | None = Field(None, ge=0, description="seed of its subset, balance and draws; by default the recipe's")

    @property
    def label(self) -> str:
        """The name, or the path in its place."""
        return self.name or self.path


class LoraRecipe(Closed):
    """A LoRA adapter, made by peft."""

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
    evaluation_prompts: list[str] = Field([], description="files of prompts that the training data must not contain")
    allow_overlap: list[str] = Field([], description="suites and files whose prompts the training data may contain")
    output_dir: str

    loss_type: str | None = Field(None, description="objective; by default bfpo, and sft in the sft stage")
    labeling: str | None = Field(None, description="b1 and alpha from a file of 'bfpo label --fit-preference'")

    trainable: str = Field("all", description="all, or a regular expression of parameter names")
    lora: LoraRecipe | None = None
    precision: Literal["fp32", "bf16"] | None = Field(None, description="by default bf16 on a GPU that has it")
    gradient_checkpointing: bool = False

    batch_size: int = Field(64, ge=1, description="groups of a global step, buffer included")
    buffer_ratio: float = Field(1.0, gt=0, description="buffer groups for each main group of a step")
    micro_batch_tokens: int = Field(16_384, ge=1, description="tokens that go through the model at once")
    layout: Literal["auto", "shared", "packed", "padded"] = Field(
        "auto",
        description="prompt once for all its answers, once an answer, or rows; auto takes the fastest that is exact",
    )
    reference_cache: str | None = Field(
        "default", description="folder of reference log-probabilities; null to score them anew every time"
    )
    max_length: int = Field(1024, ge=2, description="tokens of prompt and answer")
    num_train_epochs: float = Field(1.0, gt=0)
    max_steps: int = Field(-1, description="number of steps to stop after; -1 for whole epochs")
    learning_rate: float = Field(5e-7, gt=0)
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = Field(0.1, ge=0, description="steps, or below 1 a share of all steps")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    seed: int = Field(0, ge=0)

    logging_steps: int = Field(10, ge=1)
    save_steps: int | None = Field(None, ge=1, description="steps between checkpoints; by default none are saved")
    save_total_limit: int | None = Field(2, ge=1, description="complete checkpoints to keep")
    eval_steps: int | None = Field(None, ge=1, description="steps between evaluations")
    keep_best: bool = Field(False, description="end with the checkpoint of the lowest eval loss")
    report_to: str | list[str] = Field("none", description="trackers of transformers' Trainer, e.g. tensorboard")

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return self.loss_type or ("sft" if self.stage == "sft" else "bfpo")

    @property
    def objective_options(self) -> dict[str, Any]:
        """Options of the objective that are given, i.e. are not None."""
        given = {name: getattr(self, name) for name in option_types()}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe and everything that it was resolved to.

    Attributes:
        recipe: the recipe.
        origins: where each of its values came from: recipe, command line or default.
        labeling: the fitted labeling that it names, if it names one.
    """

    recipe: Recipe
    origins: dict[str, str]
    labeling: FittedLabeling | None

    @property
    def objective_options(self) -> dict[str, Any]:
        """Options of the objective, those of the fitted labeling among them."""
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
        return "two sources have the same name: give each a 'name' of its own"
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
        return "'labeling' says what b1 and alpha are: leave them out, or leave out 'labeling'"
    if recipe.labeling and recipe.objective != "bfpo":
        return f"loss_type {recipe.objective!r} does not read 'labeling': remove it"
    if recipe.lora and recipe.trainable != "all":
        return "'lora' and 'trainable' both say which weights train: give only one"
    if (recipe.eval_steps or recipe.keep_best) and recipe.eval_data is None:
        return "'eval_steps' and 'keep_best' need 'eval_data'"
    if recipe.keep_best and not (recipe.eval_steps and recipe.save_steps == recipe.eval_steps):
        return "'keep_best' needs 'eval_steps' and a 'save_steps' equal to it"
    return None


def _floats(value: Any) -> Any:
    """Numbers such as 5e-7, which YAML 1.1 reads as text for want of a dot."""
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
