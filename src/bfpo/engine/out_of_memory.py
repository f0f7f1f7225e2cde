"""Explained out-of-memory errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bfpo.errors import RunError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on GPU or CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def explained_out_of_memory(doing: str, max_tokens: int) -> Iterator[None]:
    """Turn a failed allocation, on GPU or CPU, into an error with the activity and the settings to change.

    Raises:
        RunError: if an allocation fails.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"out of memory while {doing}: lower micro_batch_tokens (now {max_tokens:,}), which changes no result; if "
            "a single row is too large, set gradient_checkpointing or lower max_length; if the weights are too large, "
            "train fewer of them (lora, or trainable: down_proj). 'bfpo train RECIPE --plan' estimates the memory"
        ) from error
