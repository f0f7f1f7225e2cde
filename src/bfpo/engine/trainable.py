"""The weights that train: all, an adapter, or those whose name matches a pattern (the paper: ``down_proj``)."""

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
    """The model with its adapter, its dropout off, and only the wanted weights training.

    Args:
        model: the model, which is changed.
        pattern: see `select_trainable`.
        adapter: a PEFT configuration, for example LoRA.
        disable_dropout: whether every dropout of the model is set to zero.
        bf16: whether the weights that train are held in float32 for training in bfloat16.
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
    """Let only the parameters train whose name contains a match of the regular expression; "all" keeps all.

    Raises:
        BfpoError: if the pattern is no regular expression or matches no parameter.
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
    """Hold the weights that train in float32, whatever the others are in.

    A bfloat16 weight has 8 bits of mantissa: an update of less than 1/512 of it, which at preference training's
    learning rates is nearly every update, would be rounded away.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
