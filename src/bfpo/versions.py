"""Versions of what decides a result, for the records of runs."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("bfpo", "torch", "transformers", "accelerate", "datasets", "peft", "tokenizers", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
