"""Trainable weights: all, an adapter, or those whose name matches a pattern (the paper: ``down_proj``)."""

from __future__ import annotations

import inspect
import re
import warnings
from functools import cache
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from bfpo.errors import BfpoError, did_you_mean


def prepare_model(
    model: PreTrainedModel | PeftModel, pattern: str, adapter: PeftConfig | None, *, disable_dropout: bool, mixed: bool
) -> PreTrainedModel | PeftModel:
    """Prepare a model for training: add the adapter, disable dropout and select the trainable weights, in place.

    Args:
        model: the model.
        pattern: see `select_trainable`.
        adapter: a PEFT configuration, for example LoRA.
        disable_dropout: whether to set the model's dropout to zero; an adapter keeps its own.
        mixed: whether training computes in half precision, with the trainable weights in float32.

    Raises:
        BfpoError: if the model is split over devices, already has an adapter, the adapter doesn't fit it, a pattern
            would train weights beside an adapter, or nothing is trainable.
    """
    _check_whole(model)
    prepared: PreTrainedModel | PeftModel = model
    if not isinstance(model, PeftModel) and getattr(model, "_hf_peft_config_loaded", False):
        raise BfpoError(
            "transformers attached an adapter to the model: load it with PeftModel.from_pretrained(base, adapter, "
            "is_trainable=True) to train it, or add .merge_and_unload() to train from its merged weights"
        )
    if adapter is not None:
        if isinstance(model, PeftModel):
            raise BfpoError("the model has an adapter already: leave out peft_config, or call model.merge_and_unload()")
        prepared = add_adapter(model, adapter)
    is_quantized = getattr(model, "is_quantized", False)
    if is_quantized and not isinstance(prepared, PeftModel):
        raise BfpoError("the model's weights are quantized and can't train: give a peft_config, for example LoRA")
    if is_quantized and not mixed and model.dtype != torch.float32:
        raise BfpoError(f"the model's weights are quantized, and the others are {model.dtype}: set bf16=True")
    if pattern != "all" and isinstance(prepared, PeftModel):
        raise BfpoError("with an adapter, 'trainable' would train weights that are not saved with it: leave one out")
    for module, name in dropouts(prepared, of_adapters=False) if disable_dropout else ():
        setattr(module, name, 0.0)
    quantized: Any = (module for module in prepared.modules() if hasattr(module, "support_avx512bf16_for_cpu"))
    for module in quantized:
        # On such a CPU, bitsandbytes would pack weights in 4 bits for scoring, in a format without a backward pass.
        module.support_avx512bf16_for_cpu = False
    select_trainable(prepared, pattern)
    if not any(parameter.requires_grad for parameter in prepared.parameters()):
        raise BfpoError("no weight of the model is trainable: load its adapter with is_trainable=True")
    if mixed:
        keep_trained_weights_in_float32(prepared)
        _leave_casts_to_autocast(prepared)
    elif any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in prepared.parameters()):
        warnings.warn(
            "the model has half-precision weights, which would round most updates away, so they were converted to "
            "float32; set bf16=True to convert only the trained ones",
            stacklevel=3,
        )
        prepared.float()
    return prepared


def dropouts(model: nn.Module, *, of_adapters: bool = True) -> list[tuple[Any, str]]:
    """Everything by which a model drops something in training: an object, and its attribute that is the chance of it.

    Besides `nn.Dropout`, these are modules with numbers such as ``attention_dropout`` and ``layerdrop``, and the
    configuration where a forward reads such a number there.
    """
    adapters: set[nn.Module] = set()
    for layer in model.modules() if not of_adapters else ():
        if isinstance(layer, BaseTunerLayer):
            adapters |= {part for name, part in layer.named_modules() if name and name.split(".")[0] != "base_layer"}
    found: list[tuple[Any, str]] = []
    for module in model.modules():
        # A layer of dropout calls its own chance p.
        is_layer = "Dropout" in type(module).__name__
        for name, value in vars(module).items() if module not in adapters else ():
            is_chance = "drop" in name or (is_layer and name == "p")
            found += [(module, name)] if is_chance and isinstance(value, float) and value > 0 else []
        config: Any = getattr(module, "config", None)
        found += [(config, name) for name in _read_of_config(type(module)) if getattr(config, name, 0)]
    return found


@cache
def _read_of_config(kind: type[nn.Module]) -> set[str]:
    """Names of the chances that a module's forward reads from its configuration (Falcon, Persimmon)."""
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):  # a class that was made at run time
        return set()
    return set(re.findall(r"self\.config\.(\w*drop\w*)", source))


class _OutsideAutocast:
    """True where autocast doesn't cast, whenever it is asked."""

    def __bool__(self) -> bool:
        return not (torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"))


def _leave_casts_to_autocast(model: nn.Module) -> None:
    """Spare adapters PEFT's own cast of their input to float32, which autocast takes back at once.

    Layers of one input (queries, keys and values) then keep one copy of it for the backward pass instead of one each.
    The numbers are the same.
    """
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = _OutsideAutocast()  # pyright: ignore


def _check_whole(model: nn.Module) -> None:
    """Refuse a model whose layers or weights are divided already: the reference is scored by the whole model."""
    if len(set(getattr(model, "hf_device_map", {}).values())) > 1:
        raise BfpoError("the model's layers are on several devices: load it without device_map, to train it whole")
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise BfpoError(
            "the model's weights are divided among processes (FSDP or tensor parallel) before training, which divides "
            "them itself: load it whole, without tp_plan or fully_shard"
        )


def add_adapter(model: PreTrainedModel, adapter: PeftConfig) -> PeftModel:
    """Add an adapter to a model, in place.

    Raises:
        BfpoError: if the adapter doesn't fit the model.
    """
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    listed = [getattr(adapter, field, None) for field in ("target_modules", "modules_to_save")]
    for wanted in (name for given in listed if given and not isinstance(given, str) for name in given):
        # PEFT refuses a list of which no name fits, and takes one of which some don't. A plan has not all layers.
        if "." not in wanted and wanted not in names:
            hint = did_you_mean(wanted, names)
            raise BfpoError(f"the adapter doesn't fit the model: it has no module {wanted!r}{hint}")
    try:
        return get_peft_model(model, adapter)  # pyright: ignore[reportReturnType]
    except (ValueError, re.error) as error:
        raise BfpoError(f"the adapter doesn't fit the model: {error}") from error


def check_mergeable(adapted: PeftModel, remedy: str) -> None:
    """Refuse to merge an adapter of embeddings that are also the head: one of the two would change with the other.

    Raises:
        BfpoError: if the adapter has such.
    """
    model: Any = adapted.get_base_model()
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    is_adapted = any(isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)) for module in ends)
    if is_adapted and getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        raise BfpoError(
            "the adapter changes the embeddings or the head, which are one matrix in this model, so merging it would "
            f"give another model: {remedy}"
        )


def select_trainable(model: nn.Module, pattern: str) -> None:
    """Freeze all parameters whose name has no match of the regular expression; "all" freezes none.

    Raises:
        BfpoError: if the pattern is not a regular expression or matches no parameter.
    """
    if pattern == "all":
        return
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise BfpoError(
            f"trainable: {pattern!r} is not a regular expression ({error}): write for example 'down_proj'"
        ) from error
    parameters = dict(model.named_parameters())
    matching = {name for name in parameters if wanted.search(name)}
    if not matching:
        raise BfpoError(
            f"trainable: {pattern!r} matches no parameter of the model, whose names look like "
            f"{', '.join(list(parameters)[:3])}"
        )
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in matching)


def keep_trained_weights_in_float32(model: nn.Module) -> None:
    """Convert trainable weights to float32.

    A bfloat16 weight has 8 bits of mantissa: an update below 1/512 of it, which is nearly every update at the learning
    rates of preference training, would be rounded away.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
