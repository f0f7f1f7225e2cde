"""Bi-Factorial Preference Optimization: models that are safe and helpful, trained, labelled and measured."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bfpo.objectives.bfpo import GlobalPreference, bfpo_loss
    from bfpo.preferences.loading import load_preferences
    from bfpo.training.config import BFPOConfig
    from bfpo.training.trainer import BFPOTrainer

__version__ = "0.1.0"
__all__ = ["BFPOConfig", "BFPOTrainer", "GlobalPreference", "bfpo_loss", "load_preferences"]

_HOME = {
    "BFPOConfig": "bfpo.training.config",
    "BFPOTrainer": "bfpo.training.trainer",
    "GlobalPreference": "bfpo.objectives.bfpo",
    "bfpo_loss": "bfpo.objectives.bfpo",
    "load_preferences": "bfpo.preferences.loading",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``bfpo --help`` does not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'bfpo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
