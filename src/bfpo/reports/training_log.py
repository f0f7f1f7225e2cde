"""Reading of a model's training record from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bfpo.safehelp.records import Evaluation


def training_record(evaluation: Evaluation) -> dict[str, Any] | None:
    """The ``run.json`` that ``bfpo train`` wrote beside the model; None if there is none."""
    place = evaluation.header.model_path
    path = Path(place) / "run.json" if place else None
    if path is None or not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return record if isinstance(record, dict) and "config" in record else None


def gaps_of(training: Mapping[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """(step, gap) for every safety cell of a training run's ``run.json``; empty if its objective has no target."""
    gaps: dict[str, list[tuple[int, float]]] = {}
    for entry in training.get("log", ()):
        for key, value in entry.items():
            parts = key.split("/")
            if len(parts) == 3 and parts[0] == "cells" and parts[2] == "gap":
                gaps.setdefault(parts[1], []).append((int(entry["step"]), float(value)))
    return gaps
