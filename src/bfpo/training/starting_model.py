"""The model and tokenizer that a recipe starts from, and the adapter that it trains."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig, PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bfpo.engine.trainable import check_mergeable
from bfpo.errors import BfpoError
from bfpo.files import whole_folder, write_text
from bfpo.models import (
    adapter_config,
    check_4bit,
    load_model,
    load_peft_model,
    load_tokenizer,
    resolved_revision,
)
from bfpo.training.engines import check_not_sharded
from bfpo.training.recipe import Recipe

# Folder, inside a run folder, of the weights that a new adapter belongs to, and the file there that says so.
BASE = "base"
_MERGED_FROM = "merged_from.json"


@dataclass(frozen=True)
class StartingModel:
    """A model to train.

    Attributes:
        model: the model; with ``lora: continue`` its adapter is attached and trains.
        new_adapter: configuration of the adapter to add, if any.
        record: name, revision, architecture, size and treatment of the adapter, for ``run.json``.
    """

    model: PreTrainedModel | PeftModel
    new_adapter: PeftConfig | None
    record: dict[str, Any]


def load_starting_model(recipe: Recipe, *, is_resumed: bool = False) -> StartingModel:
    """Load a recipe's model on the CPU, from which the trainer moves the model or its shards.

    A model in 4 bits is loaded on the device that trains it.

    An adapter is merged into its base model unless the recipe continues it. A new adapter then belongs to the merged
    weights, so they are saved in the run folder for whoever loads the result; if the run is resumed, they are its own.

    Raises:
        BfpoError: if the model can't be loaded, is not an adapter to continue, or the place of merged weights is taken.
    """
    source = adapter_config(recipe.model, revision=recipe.model_revision)
    where: dict[str, Any] = {"dtype": weights_dtype(recipe), "device": torch.device("cpu")}
    as_trained = where
    if recipe.load_in_4bit:
        as_trained = where | {"device": PartialState().device, "load_in_4bit": True}
    record: dict[str, Any] = {}
    continued = recipe.lora is not None and recipe.lora.continued
    if source is None:
        if continued:
            raise BfpoError(f"'lora: continue' needs an adapter, which {recipe.model!r} is not: write lora: {{r: 16}}")
        model = load_model(recipe.model, revision=recipe.model_revision, **as_trained)
        record["name"] = model.config.name_or_path
        if os.path.isdir(recipe.model):
            # An adapter names its base; a relative path would be found from this folder only.
            model.name_or_path = os.path.abspath(recipe.model)
    else:
        place = as_trained if continued else where
        adapted = load_peft_model(recipe.model, revision=recipe.model_revision, trainable=continued, **place)
        if not continued:
            check_mergeable(adapted, "train it on with 'lora: continue', or leave them out of it")
        # PEFT freezes the base model.
        model: Any = adapted if continued else adapted.merge_and_unload().requires_grad_(True)  # pyright: ignore
        record |= {"name": recipe.model, "adapter": "continued" if continued else "merged"}
        record["adapter_of"] = source.base_model_name_or_path
        if recipe.lora and not continued:
            record["saved_in"] = _save_base(model, recipe, is_resumed)
            if recipe.load_in_4bit:
                del adapted, model
                model = load_model(os.path.abspath(record["saved_in"]), **as_trained)
    whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    record |= {
        "revision": resolved_revision(recipe.model, recipe.model_revision),
        "architecture": type(whole).__name__,
        "parameters": whole.num_parameters(),
        **_quantization(whole, recipe),
    }
    return StartingModel(model, new_adapter(recipe), record)


def check_4bit_training(recipe: Recipe) -> None:
    """Refuse a recipe that can't load its model in 4 bits, or trains it divided, before any work.

    Raises:
        BfpoError: in these cases.
    """
    if recipe.load_in_4bit:
        check_4bit(recipe.model)
        check_not_sharded("load_in_4bit can't hold weights in 4 bits", "start one process, or several by DDP")


def _quantization(model: Any, recipe: Recipe) -> dict[str, Any]:
    """How a model's weights are quantized, for the record; they may have been in its folder already."""
    if not getattr(model, "is_quantized", False):
        return {}
    if not recipe.load_in_4bit:
        raise BfpoError(f"{recipe.model}: its weights are quantized: add 'load_in_4bit: true', or name the whole model")
    config = model.config.quantization_config
    return {
        "quantization": {
            "bits": 4,
            "type": config.bnb_4bit_quant_type,
            "double_quantization": config.bnb_4bit_use_double_quant,
            "compute_dtype": str(config.bnb_4bit_compute_dtype).removeprefix("torch."),
            "bitsandbytes": version("bitsandbytes"),
        }
    }


def remove_base(folder: Path) -> None:
    """Remove merged weights that a run which took no step left in its folder; they may be another model's."""
    if (folder / BASE / _MERGED_FROM).exists():
        shutil.rmtree(folder / BASE)


def _save_base(model: PreTrainedModel, recipe: Recipe, is_resumed: bool) -> str:
    """Save merged weights, which are the base of a new adapter, in the run folder, unless the run to resume has."""
    folder, state = Path(recipe.output_dir) / BASE, PartialState()
    if state.is_main_process and not folder.exists():
        with whole_folder(folder) as partial:
            model.save_pretrained(partial)
            recipe_tokenizer(recipe).save_pretrained(partial)
            write_text(partial / _MERGED_FROM, json.dumps({"adapter": recipe.model}) + "\n")
    # The main process may have removed an older folder just before.
    state.wait_for_everyone()
    if not is_resumed and not (folder / _MERGED_FROM).exists():
        raise BfpoError(f"{folder}: the merged model belongs here, but the folder is taken; choose another output_dir")
    # PEFT records the model's name as the adapter's base, transformers the configuration's; a relative path would be
    # found from this folder only.
    model.name_or_path = model.config.name_or_path = os.path.abspath(folder)
    return str(folder)


def new_adapter(recipe: Recipe) -> PeftConfig | None:
    """The configuration of the adapter that a recipe adds to its model."""
    if recipe.lora is None or recipe.lora.continued:
        return None
    return LoraConfig(**recipe.lora.model_dump(exclude={"continued"}), task_type="CAUSAL_LM")


def recipe_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer that a recipe names, by default its model's at the model's revision, with the recipe's template.

    Raises:
        BfpoError: if the tokenizer or the template can't be read.
    """
    if recipe.tokenizer:
        tokenizer = load_tokenizer(recipe.tokenizer)
    else:
        tokenizer = load_tokenizer(recipe.model, revision=recipe.model_revision)
    if recipe.chat_template:
        try:
            tokenizer.chat_template = Path(recipe.chat_template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BfpoError(f"chat_template: {recipe.chat_template} can't be read ({error}); check the path") from error
    return tokenizer


def uses_bf16(recipe: Recipe) -> bool:
    """Whether a recipe trains in bf16 on this machine."""
    if recipe.precision is None:
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return recipe.precision == "bf16"


def weights_dtype(recipe: Recipe) -> torch.dtype:
    """The dtype for loading and saving weights."""
    return torch.bfloat16 if uses_bf16(recipe) else torch.float32
