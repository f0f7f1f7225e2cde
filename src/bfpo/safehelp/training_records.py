"""The training records of evaluated models, as ``bfpo train`` wrote them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bfpo.config import read_json


def training_record(model_path: str | None) -> dict[str, Any]:
    """The ``run.json`` that ``bfpo train`` wrote in a model's folder; empty if there is none."""
    path = Path(model_path or "") / "run.json"
    if not (model_path and os.path.isfile(path)):
        return {}
    record = read_json(path, dict[str, Any], "the record of a run", "copy the model's folder again")
    return record if isinstance(record.get("config"), dict) else {}


def training_setting(training: Mapping[str, Any], key: str) -> Any:
    """A setting in a training record; None if it has none."""
    entry = training.get("config", {}).get(key)
    return entry.get("value") if isinstance(entry, Mapping) else None
