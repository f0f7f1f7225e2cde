"""The methods that are compared, as recipes over the same files and with the same steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from bfpo.microworld.data import chat_set, helpfulness_set, safety_set


@dataclass(frozen=True)
class Method:
    """A way to learn from a safety set and a helpfulness set.

    Attributes:
        loss_type: the objective.
        prefer: which answer of a pair of the safety set counts as chosen.
        buffer: whether the helpfulness set fills half of every step.
        beta: strength of the pull to the reference, chosen by the study (docs/results/study-quick.md).
        what: one line for tables.
    """

    loss_type: str
    prefer: Literal["helpful", "safer", "safer_then_helpful"]
    buffer: bool
    beta: float
    what: str


METHODS = {
    "BFPO": Method("bfpo", "helpful", True, 0.2, "both labels folded into one"),
    "DPO-H": Method("dpo", "helpful", True, 0.8, "helpfulness order of both sets"),
    "DPO-S": Method("dpo", "safer", False, 0.8, "the safer answer of the safety set"),
    "DPO": Method("dpo", "safer_then_helpful", True, 0.8, "the safer where flags differ, else the more helpful"),
}


@dataclass(frozen=True)
class Scale:
    """Sizes of an experiment, the same for every method.

    Attributes:
        chat: conversations for SFT.
        safety: pairs of the safety set.
        helpful: prompts of the helpfulness set.
        answers: answers to each of them.
        sft_steps: optimizer steps of SFT.
        steps: optimizer steps of every method.
        batch_size: groups of a step, in both stages.
        sft_learning_rate: peak learning rate of SFT.
        learning_rate: peak learning rate of every method.
    """

    chat: int = 1200
    safety: int = 1920
    helpful: int = 960
    answers: int = 4
    sft_steps: int = 40
    steps: int = 60
    batch_size: int = 64
    sft_learning_rate: float = 3e-4
    learning_rate: float = 1e-4


def write_data(folder: Path, scale: Scale, seed: int) -> None:
    """Write the three sets, in the shapes of the public ones: UltraChat, PKU-SafeRLHF, UltraFeedback."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "chat.jsonl", chat_set(scale.chat, seed))
    write_lines(folder / "safety.jsonl", safety_set(scale.safety, seed))
    write_lines(folder / "helpful.jsonl", helpfulness_set(scale.helpful, seed, answers=scale.answers))


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON, one a line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def sft_recipe(data: Path, model: Path, output: Path, scale: Scale, seed: int) -> dict[str, Any]:
    """SFT on the chat data and the safer answers of the safety set, the paper's first stage."""
    return {
        "stage": "sft",
        "model": str(model),
        "data": [
            {"name": "chat", "path": str(data / "chat.jsonl")},
            {"name": "safety", "path": str(data / "safety.jsonl"), "fraction": 0.2, "prefer": "safer"},
        ],
        "output_dir": str(output),
        "max_steps": scale.sft_steps,
        "batch_size": scale.batch_size,
        "learning_rate": scale.sft_learning_rate,
        "max_length": 128,
        "micro_batch_tokens": 2048,
        "seed": seed,
    }


def method_recipe(
    method: Method, beta: float, data: Path, model: Path, output: Path, scale: Scale, seed: int
) -> dict[str, Any]:
    """One method from the SFT model, with as many steps and groups as every other."""
    sources: list[dict[str, Any]] = [{"name": "safety", "path": str(data / "safety.jsonl")}]
    if method.prefer != "helpful":
        sources[0]["prefer"] = method.prefer
    if method.buffer:
        buffer = {"name": "helpful", "path": str(data / "helpful.jsonl"), "role": "buffer"}
        sources.append(buffer | ({"unknown_safety": 1.0} if method.loss_type == "bfpo" else {}))
    return {
        "stage": "preference",
        "model": str(model),
        "data": sources,
        "output_dir": str(output),
        "loss_type": method.loss_type,
        "beta": beta,
        "max_steps": scale.steps,
        "batch_size": scale.batch_size,
        "learning_rate": scale.learning_rate,
        "max_length": 128,
        "micro_batch_tokens": 2048,
        # All methods start from the same model: what one scored, the next finds.
        "reference_cache": str(output.parent / "reference"),
        "seed": seed,
    }


def write_recipe(path: Path, recipe: Mapping[str, Any]) -> Path:
    """Write a recipe where a user can read it and run it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(recipe), sort_keys=False), encoding="utf-8")
    return path
