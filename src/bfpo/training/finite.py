"""Errors for losses, gradients and weights that are not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from bfpo.errors import RunError

# Number of rows named in a message.
_NAMED = 8


def not_finite(what: str, step: int, rows: Sequence[int], newest: Path | None) -> RunError:
    """The error for a loss or gradient that isn't finite, with the rows of the step and the newest checkpoint."""
    named = ", ".join(map(str, rows[:_NAMED])) + (f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else "")
    kept = f"the newest checkpoint is {newest}" if newest else "there is no checkpoint"
    return RunError(
        f"step {step}: {what}{f' (rows {named})' if rows else ''}; training stopped before the update, and {kept}; "
        "lower learning_rate, or look at these rows with 'bfpo data show'"
    )


def check_finite_weights(weights: Mapping[str, Tensor]) -> None:
    """Check that all weights are finite.

    Raises:
        RunError: if one isn't; the message names the first.
    """
    for name, weight in weights.items():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise RunError(f"{name} is not finite after training, so the model was not saved; lower learning_rate")
