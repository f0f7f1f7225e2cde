"""``run.json``: what a run was made of, where each value came from, and how long it took."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bfpo.training.recipe import ResolvedRecipe

FILE_NAME = "run.json"
_PACKAGES = ("bfpo", "torch", "transformers", "accelerate", "datasets", "peft", "tokenizers", "safetensors", "numpy")


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{FILE_NAME}.partial"
    partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, folder / FILE_NAME)


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a run's folder, or None where there is none."""
    path = folder / FILE_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def config_record(resolved: ResolvedRecipe) -> dict[str, dict[str, Any]]:
    """Every value of a recipe with its origin."""
    values = resolved.recipe.model_dump(mode="json")
    return {key: {"value": value, "origin": resolved.origins[key]} for key, value in values.items()}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
