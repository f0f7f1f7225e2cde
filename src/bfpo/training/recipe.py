"""Recipes: closed YAML files, each of which describes a whole training run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, create_model, model_validator
from transformers import SchedulerType
from transformers.training_args import OptimizerNames

from bfpo.config import Closed, parse_yaml, read_yaml, validated
from bfpo.engine.layout_choice import WantedLayout
from bfpo.errors import BfpoError
from bfpo.labeling.fitted import FittedLabeling, load_labeling
from bfpo.labeling.flags import Flags
from bfpo.labeling.source_labels import OrderRule
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.objectives.registry import option_types
from bfpo.preferences.harm import HarmPrices
from bfpo.preferences.ordering import ORDERS, Order
from bfpo.training.expected import check_band
from bfpo.training.step_plan import some_steps

PathText = Annotated[str, AfterValidator(os.path.expanduser)]


class _Part(Closed):
    """Part of a recipe, whose values have the types of its keys: YAML's yes, "1" and .nan are no numbers."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class SourceRecipe(_Part):
    """One source of rows, with their selection and labels."""

    path: PathText = Field(description="a file, or the name of a data set on the Hub")
    name: str | None = Field(None, description="name in messages and records; by default the path")
    role: Literal["main", "buffer"] = Field("main", description="main rows define the epochs, buffer rows cycle")
    split: str = Field("train", description="split of a Hub data set")
    revision: str | None = Field(None, description="revision of a Hub data set; the commit it resolved to is recorded")
    columns: dict[str, str] | None = Field(None, description="columns to rename, from theirs to ours")
    unknown_safety: Literal["error", "drop"] | float | None = Field(
        None, description="treatment of rows without safety flags: error, drop, or a probability of being safe"
    )
    unknown_order: Literal["error", "drop"] | float | None = Field(
        None, description="treatment of rows that don't say which answer is more helpful: error, drop, or 0.5"
    )
    prefer: Order = Field(
        "helpful",
        description="answer of a pair that counts as chosen (and that SFT trains on): "
        + "; ".join(f"{name}: {meaning}" for name, meaning in ORDERS.items()),
    )
    group_by_prompt: bool = Field(
        False,
        description="train all pairs of a prompt as one group, faster where prompts recur; flags of equal answers are "
        "averaged",
    )
    flags: Flags | None = Field(
        None,
        description="what to make of flags that a judge filled in: verdict, unbiased, probability or doubly_robust; by "
        "default unbiased where people's random sample allows it, else verdict",
    )
    order: OrderRule | None = Field(
        None, description="what to make of orders that a judge filled in: verdict (default) or unbiased"
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


class LoraRecipe(_Part):
    """Settings of a LoRA adapter, as in ``peft.LoraConfig``; or ``continued``, which a recipe writes as "continue"."""

    continued: bool = Field(False, description="whether to train the adapter that the model is")
    r: int = Field(16, ge=1, description="rank of the adapter's matrices")
    lora_alpha: int = Field(32, ge=1, description="scale of the adapter, divided by r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    target_modules: str | list[str] = Field("all-linear", description="modules that get an adapter, as in PEFT")
    modules_to_save: list[str] | None = Field(None, description="modules to train whole and save with the adapter")

    @model_validator(mode="before")
    @classmethod
    def _continue(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("continued") and len(value) > 1:
            raise ValueError("the adapter that is trained on has its own settings; write lora: continue alone")
        return {"continued": True} if value == "continue" else value


# YAML has lists, and no tuples.
_Band = Annotated[tuple[float, float], Field(strict=False)]
_OPTIONS: dict[str, Any] = {name: (kind | None, None) for name, kind in option_types().items()}
ObjectiveOptions = create_model("ObjectiveOptions", __base__=_Part, **_OPTIONS)


class Recipe(ObjectiveOptions):
    """All the settings of a training run; see docs/how-to/train.md."""

    stage: Literal["sft", "preference"] = Field(description="what to train on: answers, or preferences between them")
    model: PathText = Field(description="folder, .gguf file or Hub name of the model to start from")
    model_revision: str | None = Field(None, description="revision of the model; the commit it resolved to is recorded")
    tokenizer: PathText | None = Field(None, description="folder or Hub name; by default the model's")
    system_prompt: str | None = Field(None, min_length=1, description="system prompt for rows that have none")
    chat_template: PathText | None = Field(None, description="file with a Jinja template to use and to save instead")
    data: list[SourceRecipe] = Field(min_length=1, description="sources of rows; their keys are below")
    eval_data: SourceRecipe | None = Field(None, description="source of the evaluation data")
    eval_fraction: float | None = Field(
        None, gt=0, lt=1, description="seeded share of the main sources' prompts to hold out as evaluation data"
    )
    evaluation_prompts: list[PathText] = Field(
        [], description="files with prompts that the training data must not contain"
    )
    allow_overlap: list[str] = Field([], description="suites and files whose prompts the training data may contain")
    output_dir: PathText = Field(description="folder for the model, run.json and checkpoints")

    loss_type: str | None = Field(None, description="objective; by default bfpo, and sft in the sft stage")
    labeling: PathText | None = Field(None, description="b1 and alpha from a file of 'bfpo label --fit-preference'")
    harm_prices: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = Field(
        None, description="price of each harm category in BFPO's label; 'default' is that of the others, by default b3"
    )

    trainable: str = Field("all", description="all, or a regular expression for parameter names")
    lora: LoraRecipe | None = Field(None, description="a new adapter; or 'continue' the adapter that the model is")
    load_in_4bit: bool = Field(
        False, description="QLoRA: hold the frozen weights in 4 bits (NF4, double quantization); needs lora"
    )
    merge_adapter: bool = Field(False, description="save whole weights, with the trained adapter merged into them")
    precision: Literal["fp32", "bf16"] | None = Field(None, description="by default bf16 on a GPU that supports it")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass")

    batch_size: int = Field(64, ge=1, description="groups in a global step, buffer included")
    buffer_ratio: float = Field(1.0, gt=0, description="buffer groups for each main group of a step")
    micro_batch_tokens: int | None = Field(
        None, ge=1, description="largest number of tokens in the model at once; by default 1,536 on a CPU, else 16,384"
    )
    layout: WantedLayout = Field(
        "auto",
        description="the prompt once, once per answer, or one row per answer; auto: the fastest that is exact",
    )
    reference_cache: PathText | None = Field(
        "default", description="folder of cached reference log-probabilities; null to score them in every run"
    )
    max_length: int = Field(1024, ge=2, description="largest number of tokens in prompt and answer")
    num_train_epochs: float = Field(1.0, gt=0, description="passes over the main rows")
    max_steps: Annotated[int, AfterValidator(some_steps)] = Field(
        -1, description="number of steps to stop after; -1 for whole epochs"
    )
    learning_rate: float = Field(5e-7, gt=0, description="largest learning rate of the schedule")
    lr_scheduler_type: SchedulerType = Field(
        SchedulerType.COSINE, strict=False, description="schedule, as in transformers"
    )
    lr_scheduler_kwargs: dict[str, Any] | None = Field(None, description="arguments of the schedule")
    optim: OptimizerNames = Field(
        OptimizerNames.ADAMW_TORCH_FUSED, strict=False, description="optimizer, as in transformers"
    )
    optim_args: str | None = Field(None, description="arguments of the optimizer, as in transformers")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="decay of AdamW's first moment")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="decay of AdamW's second moment")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW's epsilon")
    warmup_steps: float = Field(0.1, ge=0, description="number of steps; below 1, share of all steps")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    max_grad_norm: float = Field(1.0, ge=0, description="norm to clip the gradient at; 0 for no clipping")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="random seed for everything that is drawn")

    logging_steps: int = Field(10, ge=1, description="steps between lines of the log")
    save_steps: int | None = Field(None, ge=1, description="steps between checkpoints; by default none are saved")
    save_total_limit: int | None = Field(2, ge=1, description="number of complete checkpoints to keep")
    eval_steps: int | None = Field(None, ge=1, description="steps between evaluations")
    keep_best: bool = Field(False, description="keep the checkpoint with the lowest eval loss as the final model")
    early_stopping_patience: int | None = Field(
        None, ge=1, description="evaluations without a new best, after which training stops; needs keep_best"
    )
    expected: Annotated[dict[str, _Band], AfterValidator(check_band)] = Field(
        {},
        description="band, [low, high], of a metric's last value or of a SafeHelp figure, by name; train and compare "
        "show where it is",
    )
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

    @property
    def harm_prices(self) -> HarmPrices | None:
        """Prices by harm category, from the recipe or the fitted labeling; None if BFPO's b3 prices all harm."""
        own = dict(self.recipe.harm_prices or {}) or dict(self.labeling.prices if self.labeling else {})
        b3 = GlobalPreference(self.objective_options.get("b1", GlobalPreference.b1)).b3
        return HarmPrices(own.pop("default", b3), own) if own else None


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> ResolvedRecipe:
    """Read a recipe from a YAML file, with ``key=value`` overrides from the command line.

    Raises:
        BfpoError: if the file can't be read, or a key or value is wrong; the message names all of them.
    """
    if not os.path.exists(path):
        raise BfpoError(f"{path}: no such recipe; 'bfpo recipe list' shows the packaged ones")
    values = read_yaml(path, "a recipe")
    given = dict.fromkeys(values, "recipe")
    for override in overrides:
        _override(values, override)
        given[re.split("[=.]", override)[0]] = "command line"
    return resolve(values, given, str(path))


def _override(values: dict[str, Any], override: str) -> None:
    """Set a key, or one inside another (``lora.r=8``, ``data.0.limit=100``), to the value of ``key=value``."""
    path, separator, text = override.partition("=")
    if not separator:
        raise BfpoError(f"--set {override}: write it as key=value, for example --set beta=0.1")
    inner: Any = values
    *outer, last = (int(key) if key.isdigit() else key for key in path.split("."))
    for key in outer:
        if isinstance(inner, dict) and inner.get(key) is None:
            inner[key] = {}
        inner = inner[key] if isinstance(inner, dict) or _holds(inner, key) else None
    if isinstance(inner, dict) or _holds(inner, last):
        inner[last] = parse_yaml(text, f"--set {override}")
    else:
        raise BfpoError(f"--set {override}: the recipe has no {path!r} to set; check the names and numbers in it")


def _holds(values: Any, key: str | int) -> bool:
    return isinstance(values, list) and isinstance(key, int) and key < len(values)


def resolve(values: Mapping[str, Any], given: Mapping[str, str], where: str) -> ResolvedRecipe:
    """Check the values of a recipe and note the origin of each.

    Raises:
        BfpoError: if a key or value is wrong, or contradicts another, or the fitted labeling can't be read.
    """
    recipe = validated(Recipe, values, where)
    contradictions = _contradictions(recipe)
    if contradictions:
        raise BfpoError(f"{where}: {'; '.join(contradictions)}")
    labeling = load_labeling(Path(recipe.labeling)) if recipe.labeling else None
    if labeling and labeling.prices and recipe.harm_prices:
        raise BfpoError(f"{where}: {recipe.labeling} has prices by category: leave out 'harm_prices' or 'labeling'")
    prices = recipe.harm_prices or (labeling and labeling.prices)
    if prices and recipe.objective_options.get("unsafe_pairs") == "drop":
        remedy = "use 'keep' or 'neutral', or leave out the prices"
        raise BfpoError(f"{where}: 'unsafe_pairs: drop' drops pairs whose harm prices tell apart: {remedy}")
    return ResolvedRecipe(recipe, {key: given.get(key, "default") for key in Recipe.model_fields}, labeling)


def _contradictions(recipe: Recipe) -> list[str]:
    """Everything in a recipe that contradicts something else in it."""
    return [sentence for is_so, sentence in (*_of_sources(recipe), *_of_training(recipe)) if is_so]


def _of_sources(recipe: Recipe) -> Iterator[tuple[object, str]]:
    """Contradictions in the data, each as (whether it is there, sentence)."""
    sources, evaluated = recipe.data, recipe.eval_data
    names = {source.label for source in sources}
    yield len(names) < len(sources), "two sources have the same name: give each its own 'name'"
    for role in ("main", "buffer"):
        weights = {source.weight for source in sources if source.role == role}
        mixed = None in weights and len(weights) > 1
        yield mixed, f"some {role} sources have a 'weight' and some have none: give one to each of them"
    weighted = evaluated and evaluated.weight is not None
    yield weighted, "'eval_data' has a 'weight', but it is not part of the blend: remove it"
    only_buffers = all(source.role == "buffer" for source in sources)
    yield only_buffers, "every source is a buffer: at least one must have 'role: main'"
    grouped = recipe.stage == "sft" and any(source.group_by_prompt for source in sources)
    yield grouped, "'group_by_prompt' groups pairs, and the sft stage has none: remove it"
    grouped = evaluated and evaluated.group_by_prompt
    yield grouped, "'eval_data' is evaluated pair by pair: remove its 'group_by_prompt'"
    both = evaluated and recipe.eval_fraction
    yield both, "'eval_data' and 'eval_fraction' both say what to evaluate on: give only one"


def _of_training(recipe: Recipe) -> Iterator[tuple[object, str]]:
    """Contradictions in objective, weights and evaluations, as in `_of_sources`."""
    objective, options, prices = recipe.objective, recipe.objective_options, recipe.harm_prices
    other = objective != "bfpo"
    unlike = (recipe.stage == "sft") != (objective == "sft")
    yield unlike, f"stage {recipe.stage!r} doesn't go with loss_type {objective!r}"
    both = recipe.labeling and {"b1", "alpha"} & options.keys()
    yield both, "'labeling' sets b1 and alpha: leave them out, or leave out 'labeling'"
    yield recipe.labeling and other, f"loss_type {objective!r} does not read 'labeling': remove it"
    yield prices is not None and other, f"loss_type {objective!r} does not read 'harm_prices': remove it"
    yield prices == {}, "'harm_prices' has no price: write one for a category, or remove it"
    both = "default" in (prices or {}) and (recipe.labeling or "b1" in options)
    yield both, "b1 is the price of categories without their own, and so is 'default' in 'harm_prices': give only one"
    both = recipe.lora and recipe.trainable != "all"
    yield both, "'lora' and 'trainable' both select the trainable weights: give only one"
    nothing = not (recipe.eval_data or recipe.eval_fraction)
    evaluates = recipe.eval_steps or recipe.keep_best
    yield evaluates and nothing, "'eval_steps' and 'keep_best' need 'eval_data' or 'eval_fraction'"
    unlike = not (recipe.eval_steps and recipe.save_steps == recipe.eval_steps)
    yield recipe.keep_best and unlike, "'keep_best' needs 'eval_steps' and a 'save_steps' equal to it"
    stops = recipe.early_stopping_patience
    yield stops and not recipe.keep_best, "'early_stopping_patience' needs 'keep_best: true'"
    yield recipe.merge_adapter and not recipe.lora, "'merge_adapter' needs 'lora'"
    frozen = recipe.load_in_4bit and not recipe.lora
    yield frozen, "'load_in_4bit' needs 'lora', as weights in 4 bits can't train: write lora: {r: 16}, or remove it"
    both = recipe.load_in_4bit and recipe.merge_adapter
    yield both, "'merge_adapter' can't merge into weights in 4 bits: remove it, and merge the adapter later"
