"""Which weights train: all, or those whose name matches a pattern (the paper trains ``down_proj`` only)."""

from __future__ import annotations

import re

from torch import nn

from bfpo.errors import BfpoError


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
