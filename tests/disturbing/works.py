"""The long commands that are disturbed: how each is started again, what it saves, and what it must end with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bfpo.engine.reference_cache import part_files, read_part
from bfpo.files import write_rows
from bfpo.microworld.data import safety_set
from bfpo.preferences.loading import load_preferences
from redteam.test_running import microworld_pairs
from training.tiny_runs import write_material, write_recipe

LORA = {"lora": {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]}}


@dataclass(frozen=True)
class Work:
    """A command whose result must not depend on what happens on the way.

    Attributes:
        name: its name in the table.
        prepare: writes the inputs into a folder and returns the arguments of ``bfpo``.
        result: the content that counts in the folder, by name.
        saved: files that a disturbed run leaves and a later one reads.
        resume: further arguments of a command that is repeated.
    """

    name: str
    prepare: Callable[[Path], list[str]]
    result: Callable[[Path], dict[str, str]]
    saved: Callable[[Path], Iterator[Path]]
    resume: tuple[str, ...] = ()


def _training(folder: Path, **changes: object) -> list[str]:
    write_material(folder)
    plan = {"max_steps": 12, "save_steps": 2, "save_total_limit": 2, "logging_steps": 1, "learning_rate": 0.002}
    cache = {"reference_cache": str(folder / "reference")}
    return ["train", str(write_recipe(folder, "run", **plan | cache | changes))]


def _reference(folder: Path) -> list[str]:
    write_material(folder)
    return ["ref", "build", str(write_recipe(folder, "run", reference_cache=str(folder / "reference")))]


def _label(folder: Path) -> list[str]:
    write_rows(folder / "labeled.jsonl", safety_set(150, 3))
    labeled = load_preferences(str(folder / "labeled.jsonl"))
    open_rows = ({name: row[name] for name in ("prompt", "chosen", "rejected")} for row in labeled)
    write_rows(folder / "pairs.jsonl", open_rows)
    files = ["-o", str(folder / "full.jsonl"), "--cache", str(folder / "verdicts.sqlite")]
    return ["label", str(folder / "pairs.jsonl"), "--judge", "microworld-oracle:0.1,0.2", *files]


def _evaluate(folder: Path) -> list[str]:
    sampling = ["--per-kind", "16", "--batch-size", "4", "--max-new-tokens", "12"]
    return ["evaluate", "microworld", *sampling, "-o", str(folder / "run")]


def _red_team(folder: Path) -> list[str]:
    write_rows(folder / "bank.jsonl", (vars(pair) for pair in microworld_pairs(30)))
    bank = ["--prompts", str(folder / "bank.jsonl"), "--style", "plain", "--held-out-style", "spelling"]
    sampling = ["--attacks", "12", "--turns", "4", "--samples", "2", "--max-new-tokens", "12"]
    return ["redteam", "microworld", "--judge", "microworld-oracle", *bank, *sampling, "-o", str(folder / "run")]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "missing"


def _files(*names: str) -> Callable[[Path], dict[str, str]]:
    return lambda folder: {name: _digest(folder / name) for name in names}


def _cached(folder: Path) -> dict[str, str]:
    """Every answer's reference, rounded, because what was scored together may differ; in the order of their keys."""
    parts = [read_part(file) for model in sorted((folder / "reference").glob("*")) for file in part_files(model)]
    values = {
        key.tobytes().hex(): round(value, 3) for part in parts for key, value in zip(part.keys, part.sums, strict=True)
    }
    return {"references": json.dumps(values, sort_keys=True)}


def _below(*names: str) -> Callable[[Path], Iterator[Path]]:
    def saved(folder: Path) -> Iterator[Path]:
        for name in names:
            place = folder / name
            yield from (file for file in sorted(place.rglob("*")) if file.is_file()) if place.is_dir() else ()
            if place.is_file():
                yield place

    return saved


WORKS = (
    Work("train", _training, _files("run/model.safetensors"), _below("run", "reference"), ("--resume",)),
    Work(
        "train (LoRA)",
        lambda folder: _training(folder, **LORA),
        _files("run/adapter_model.safetensors"),
        _below("run", "reference"),
        ("--resume",),
    ),
    Work("ref build", _reference, _cached, _below("reference")),
    Work("label", _label, _files("full.jsonl", "full.queue.jsonl"), _below("verdicts.sqlite")),
    Work("redteam", _red_team, _files("run/groups.jsonl"), _below("run")),
    Work("evaluate", _evaluate, _files("run/generations.jsonl", "run/scores.json"), _below("run")),
)
