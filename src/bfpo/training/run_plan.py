"""Plan of a recipe for ``--plan``: steps, memory and time, without training."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import psutil
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM

from bfpo.engine.cost import Cost, Kept, ModelSize, estimate_cost, kept_for_backward
from bfpo.engine.layout import Layout
from bfpo.engine.pace import measure_pace
from bfpo.engine.trainable import add_adapter, keep_trained_weights_in_float32, select_trainable
from bfpo.errors import BfpoError, one_line
from bfpo.models import (
    adapter_config,
    context_length,
    end_tokens,
    load_config,
    load_generation_config,
    quantize_to_4bit,
    uniform_length,
)
from bfpo.training.batches import as_rows, token_chunks, token_groups
from bfpo.training.config import checked_objective
from bfpo.training.recipe import Recipe, ResolvedRecipe
from bfpo.training.recipe_data import Prompts, load_blend
from bfpo.training.run import training_arguments
from bfpo.training.starting_model import (
    check_4bit_training,
    new_adapter,
    recipe_tokenizer,
    uses_bf16,
    weights_dtype,
)
from bfpo.training.step_plan import whole_steps
from bfpo.training.training_data import KnownTokens, prepare


@dataclass(frozen=True)
class Plan:
    """Data and steps of a recipe, and their estimated cost on this machine.

    Attributes:
        objective: name and options of the objective.
        steps: number of steps of the run.
        encoding: counts of each source's encoding.
        estimate: cost of an epoch's steps.
        process_bytes: memory that Python, its libraries and the data take on a CPU; 0 on a GPU.
        precision: "bf16" or "fp32".
    """

    objective: dict[str, Any]
    size: ModelSize
    main_groups: int
    buffer_groups: int
    groups_per_step: int
    main_groups_per_step: int
    steps: int
    encoding: dict[str, dict[str, Any]]
    estimate: Cost
    process_bytes: int
    device: str
    precision: str

    @property
    def memory_bytes(self) -> int:
        """Peak memory of the process on a CPU, or on the GPU."""
        return self.process_bytes + self.estimate.memory_bytes

    @property
    def seconds(self) -> float:
        """Time of the run, without loading."""
        return self.estimate.reference_seconds + self.steps * self.estimate.step_seconds


# Number of groups from which those are taken whose pace is measured.
_SAMPLE = 64


def plan_recipe(resolved: ResolvedRecipe, suites: Prompts | None = None) -> Plan:
    """Load and encode a recipe's data and measure its model, without reading weights; see `load_blend` for ``suites``.

    Raises:
        BfpoError: if training would raise it before its first step.
    """
    recipe, arguments = resolved.recipe, training_arguments(resolved)
    objective = checked_objective(arguments)
    check_4bit_training(recipe)
    blend = load_blend(resolved, suites).blend
    config = load_config(recipe.model, revision=recipe.model_revision)
    tokenizer = recipe_tokenizer(recipe)
    ends = end_tokens(load_generation_config(recipe.model, revision=recipe.model_revision), tokenizer)
    known = KnownTokens(config.get_text_config().vocab_size, ends, context_length(config), uniform_length(config))
    data = prepare(blend, tokenizer, recipe.max_length, objective, known)
    size, kept, layout = _measure_model(recipe, config, arguments.device)
    steps = arguments.step_plan(data.main, data.buffer)
    groups = [group for chunk in token_chunks(data.rows) for group in chunk]
    total = whole_steps(recipe.max_steps, recipe.num_train_epochs, steps)
    epoch = steps.epoch(0)
    planned = [[groups[row] for row in step] for step in epoch]
    sample = token_groups(as_rows(data.rows.select(np.concatenate(epoch)[:_SAMPLE])))
    bf16 = uses_bf16(recipe)
    build = partial(_random_model_of, recipe, config)
    layer_weights = (size.parameters - size.vocabulary * size.hidden) // size.layers
    pace = measure_pace(build, sample, layout, arguments.device, layer_weights=layer_weights, bf16=bf16)
    estimate = estimate_cost(
        size,
        planned,
        layout=layout,
        max_tokens=arguments.tokens_at_once,
        bf16=bf16,
        checkpointing=recipe.gradient_checkpointing,
        reference=groups if objective.needs_reference else (),
        kept=kept,
        pace=pace,
        device=arguments.device,
    )
    return Plan(
        objective={"name": recipe.objective} | asdict(objective),  # pyright: ignore[reportArgumentType]
        size=size,
        main_groups=data.main,
        buffer_groups=data.buffer,
        groups_per_step=recipe.batch_size,
        main_groups_per_step=steps.main_per_step,
        steps=total,
        encoding={name: asdict(counts) for name, counts in data.counts.items()},
        estimate=estimate,
        process_bytes=psutil.Process().memory_info().rss if arguments.device.type == "cpu" else 0,
        device=str(arguments.device),
        precision="bf16" if bf16 else "fp32",
    )


def _measure_model(recipe: Recipe, config: Any, device: torch.device) -> tuple[ModelSize, Kept, Layout]:
    """A model's sizes, the bytes it keeps for the backward pass, and its layout, measured without weights.

    The bytes leave out the adapter, which keeps the same inputs as training its matrices would, and its own are small.
    """
    with torch.device("meta"):
        _, sized = _random_model(recipe, config)
    with FakeTensorMode():
        model: Any = AutoModelForCausalLM.from_config(config, dtype=weights_dtype(recipe))
        select_trainable(model, recipe.trainable)
        if not recipe.lora:
            keep_trained_weights_in_float32(model)
        layout = _likely_layout(recipe, model)
        count = partial(kept_for_backward, model.train(), bf16=uses_bf16(recipe), device=device)
        try:
            return ModelSize.of(sized), count(layout=layout), layout
        except TypeError:  # as StableLM's and Nemotron's
            return ModelSize.of(sized), count(layout="padded"), "padded"


def _likely_layout(recipe: Recipe, model: Any) -> Layout:
    """The recipe's layout, or the one that training is going to choose, by the numbers, once the weights are loaded.

    Models that attend by code of their own, or have layers without attention, are exact in the padded layout alone.
    """
    if recipe.layout != "auto":
        return recipe.layout
    types: list[str] = getattr(model.config.get_text_config(), "layer_types", None) or []
    attends = all(kind.endswith("_attention") and kind != "linear_attention" for kind in types)
    return "shared" if attends and getattr(model, "_supports_attention_backend", False) else "padded"


def _random_model(recipe: Recipe, config: Any) -> tuple[Any, Any]:
    """A model with random weights on the current device, bare and as it trains: with its adapter, if any."""
    adapter = new_adapter(recipe)
    if recipe.lora and recipe.lora.continued:
        adapter = adapter_config(recipe.model, revision=recipe.model_revision)
        assert adapter is not None
        adapter.inference_mode = False
    base: Any = AutoModelForCausalLM.from_config(config, dtype=weights_dtype(recipe))
    if recipe.load_in_4bit:
        quantize_to_4bit(base, weights_dtype(recipe))
    model: Any = add_adapter(base, adapter) if adapter else base
    select_trainable(model, recipe.trainable)
    keep_trained_weights_in_float32(model)
    return base, model


def _random_model_of(recipe: Recipe, config: Any, layers: int) -> tuple[Any, Any]:
    """The same with so many layers."""
    smaller = copy.deepcopy(config)
    text = smaller.get_text_config()
    before, text.num_hidden_layers = text.num_hidden_layers, layers
    for name, values in vars(text).items():
        if "layer" in name and isinstance(values, list) and len(values) == before:
            # Something of each layer, such as its type; more layers than the model has are like the first ones again.
            setattr(text, name, (values * layers)[:layers])
    try:
        return _random_model(recipe, smaller)
    except (ValueError, LookupError, AttributeError) as error:  # of a configuration that fits one depth alone
        raise BfpoError(
            f"{recipe.model}: its pace can't be measured on fewer layers ({one_line(error)}); train without --plan"
        ) from error
