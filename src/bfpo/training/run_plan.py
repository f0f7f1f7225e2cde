"""Plan of a recipe for ``--plan``: steps, memory and time, without training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM

from bfpo.engine.cost import Cost, Kept, ModelSize, estimate_cost, kept_for_backward, measure_flops
from bfpo.engine.trainable import add_adapter, select_trainable
from bfpo.models import adapter_config, end_tokens, load_config, load_generation_config
from bfpo.training.batches import token_chunks
from bfpo.training.recipe import Recipe, ResolvedRecipe
from bfpo.training.recipe_data import Prompts, load_blend
from bfpo.training.run import training_arguments
from bfpo.training.starting_model import new_adapter, recipe_tokenizer, uses_bf16
from bfpo.training.training_data import KnownTokens, prepare


@dataclass(frozen=True)
class Plan:
    """Data and steps of a recipe, and their estimated cost on this machine."""

    objective: dict[str, Any]
    size: ModelSize
    main_groups: int
    buffer_groups: int
    groups_per_step: int
    main_groups_per_step: int
    steps: int
    encoding: dict[str, dict[str, Any]]
    estimate: Cost
    device: str
    precision: str


def plan_recipe(resolved: ResolvedRecipe, suites: Prompts | None = None) -> Plan:
    """Load and encode a recipe's data and measure its model, without reading weights.

    Args:
        resolved: the recipe.
        suites: evaluation prompts by the name of their suite, which the training data must not contain.

    Raises:
        BfpoError: if training would raise it before its first step.
    """
    recipe, arguments = resolved.recipe, training_arguments(resolved)
    objective = arguments.objective()
    arguments.check()
    blend = load_blend(resolved, suites).blend
    config = load_config(recipe.model, revision=recipe.model_revision)
    tokenizer = recipe_tokenizer(recipe)
    ends = end_tokens(load_generation_config(recipe.model, revision=recipe.model_revision), tokenizer)
    known = KnownTokens(config.get_text_config().vocab_size, ends)
    data = prepare(blend, tokenizer, recipe.max_length, objective, known)
    size, kept = _measure_model(recipe, config)
    steps = arguments.step_plan(data.main, data.buffer)
    groups = [group for chunk in token_chunks(data.rows) for group in chunk]
    used = [groups[row] for step in steps.epoch(0) for row in step]
    bf16 = uses_bf16(recipe)
    total = recipe.max_steps if recipe.max_steps > 0 else round(steps.steps_per_epoch * recipe.num_train_epochs)
    return Plan(
        objective={"name": recipe.objective} | asdict(objective),  # pyright: ignore[reportArgumentType]
        size=size,
        main_groups=data.main,
        buffer_groups=data.buffer,
        groups_per_step=recipe.batch_size,
        main_groups_per_step=steps.main_per_step,
        steps=total,
        encoding={name: asdict(counts) for name, counts in data.counts.items()},
        estimate=estimate_cost(
            size,
            used,
            # The layout is chosen only once the weights are loaded; most models support "shared".
            layout="shared" if recipe.layout == "auto" else recipe.layout,
            max_tokens=recipe.micro_batch_tokens,
            bf16=bf16,
            checkpointing=recipe.gradient_checkpointing,
            reference=objective.needs_reference,
            kept=kept,
            flops_per_second=measure_flops(arguments.device, torch.bfloat16 if bf16 else torch.float32),
        ),
        device=str(arguments.device),
        precision="bf16" if bf16 else "fp32",
    )


def _measure_model(recipe: Recipe, config: Any) -> tuple[ModelSize, Kept]:
    """A model's sizes and the bytes it keeps for the backward pass, measured without weights.

    The latter leaves out the adapter: it keeps the same inputs as training its matrices would, and its own are small.
    """
    adapter = new_adapter(recipe)
    if recipe.lora and recipe.lora.continued:
        adapter = adapter_config(recipe.model, revision=recipe.model_revision)
    with torch.device("meta"):
        sized: Any = AutoModelForCausalLM.from_config(config)
        if adapter:
            sized = add_adapter(sized, adapter)
    select_trainable(sized, recipe.trainable)
    with FakeTensorMode():
        model: Any = AutoModelForCausalLM.from_config(config)
        select_trainable(model, recipe.trainable)
        return ModelSize.of(sized), kept_for_backward(model.train(), bf16=uses_bf16(recipe))
