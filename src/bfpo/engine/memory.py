"""What to do when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bfpo.errors import RunError


@contextmanager
def explained_out_of_memory(doing: str, max_tokens: int) -> Iterator[None]:
    """Turn a failed allocation, on a GPU or where the system refuses one, into what the user can change.

    Args:
        doing: what is going on, for the message.
        max_tokens: tokens of a micro-batch as it is set.

    Raises:
        RunError: in its place.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
            raise
        raise RunError(
            f"out of memory while {doing}: lower micro_batch_tokens (now {max_tokens:,}), which changes no result; if "
            "a single row is too large, set gradient_checkpointing or lower max_length; if the weights are, train "
            "fewer of them (lora, or trainable: down_proj). 'bfpo train RECIPE --plan' estimates what is needed"
        ) from error
