"""Trainable weights: all, an adapter, or those whose name matches a pattern (the paper: ``down_proj``)."""

from __future__ import annotations

import re

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from bfpo.errors import BfpoError


def prepare_model(
    model: PreTrainedModel, pattern: str, adapter: PeftConfig | None, *, disable_dropout: bool, bf16: bool
) -> PreTrainedModel | PeftModel:
    """Prepare a model for training: add the adapter, disable dropout and select the trainable weights, in place.

    Args:
        model: the model.
        pattern: see `select_trainable`.
        adapter: a PEFT configuration, for example LoRA.
        disable_dropout: whether to set every dropout to zero.
        bf16: whether to keep trainable weights in float32 for training in bfloat16.
    """
    prepared: PreTrainedModel | PeftModel = model
    if adapter is not None:
        adapted = get_peft_model(model, adapter)
        assert isinstance(adapted, PeftModel)
        prepared = adapted
    for module in prepared.modules() if disable_dropout else ():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    select_trainable(prepared, pattern)
    if bf16:
        keep_trained_weights_in_float32(prepared)
    return prepared


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
