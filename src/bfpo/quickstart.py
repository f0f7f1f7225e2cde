"""The quickstart: data, training, evaluation and report on the embedded microworld, offline, in minutes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from bfpo.errors import BfpoError
from bfpo.files import sole_user, write_json, write_rows, write_text
from bfpo.microworld.data import chat_set, helpfulness_set, safety_set
from bfpo.microworld.worlds import W0, World
from bfpo.models import MICROWORLD
from bfpo.preferences.ordering import ORDERS, Order
from bfpo.reports.page import build_report
from bfpo.reports.report import Report
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.items import FACTORS
from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.suites import load_suite
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train

OWN_RECIPE = """\
stage: preference
model: Qwen/Qwen2.5-0.5B-Instruct        # a folder, or a name on the Hub
data:
  - path: my_safety_pairs.jsonl          # prompt, chosen (more helpful), rejected, chosen_is_safe, rejected_is_safe
  - path: my_helpful_pairs.jsonl         # prompt, chosen, rejected
    role: buffer                         # fills half of every step
    unknown_safety: 1.0                  # assumed safe, as in the paper
loss_type: bfpo
lora: {r: 16}
learning_rate: 5.0e-5
output_dir: runs/my-model
"""
OWN_RECIPE_FILE = "your-model.yaml"
# The settings of a quickstart, here or on a real model, in its folder.
RECORD = "quickstart.json"
_MODELS = ("base", "start", "SFT", "BFPO", "DPO", "DPO-H", "DPO-S")
# What both quickstarts write, besides the recipe to start from: files, and folders with all that is in them.
_WRITTEN = {
    RECORD, "report.html", "plots", "red-team", "plain", "earlier", "reference", "models/reference",
    *(f"data/{name}.jsonl" for name in ("chat", "safety", "helpful")),
    *(f"{folder}/{name}" for folder in ("models", "evaluations") for name in _MODELS),
    *(f"recipes/{name}.yaml" for name in _MODELS),
}  # fmt: skip


@dataclass(frozen=True)
class Method:
    """A method that learns from a safety set and a helpfulness set.

    Attributes:
        loss_type: name of the objective.
        prefer: order that decides the chosen answer in pairs of the safety set.
        buffer: whether the helpfulness set fills half of every step.
        beta: strength of the regularization towards the reference, chosen in docs/results/study-quick.md.
        summary: description in one line.
    """

    loss_type: str
    prefer: Order
    buffer: bool
    beta: float
    summary: str


METHODS = {
    "BFPO": Method("bfpo", "helpful", True, 0.2, "both labels combined into one"),
    "DPO-H": Method("dpo", "helpful", True, 0.8, "helpfulness order in both sets"),
    "DPO-S": Method("dpo", "safer", False, 0.8, "the safer answer in the safety set"),
    "DPO": Method("dpo", "safe_first", True, 0.8, ORDERS["safe_first"]),
}


@dataclass(frozen=True)
class Scale:
    """Sizes of the data and budgets of training, the same for every method.

    Attributes:
        chat: number of conversations for SFT.
        safety: number of pairs in the safety set.
        helpful: number of prompts in the helpfulness set.
        answers: number of answers to each of those prompts.
        sft_steps: number of optimizer steps of SFT.
        steps: number of optimizer steps of every method.
        batch_size: number of groups per step, in both stages.
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


@dataclass(frozen=True)
class QuickstartResult:
    """Evaluations of all models, the report, the path of a recipe to start from, and the total time in seconds."""

    evaluations: list[Evaluation]
    report: Report
    own_recipe: Path
    seconds: float


def run_quickstart(
    folder: Path, seed: int, scale: Scale, progress: Callable[[str], None], per_kind: int = 500
) -> QuickstartResult:
    """Train SFT and the four methods on the microworld, evaluate all with SafeHelp, and write the report.

    Args:
        folder: output folder, new or empty; files of the same names are replaced.
        seed: random seed for data, training and sampling.
        scale: sizes and budgets.
        progress: function called with a line of text after every stage.
        per_kind: number of evaluation prompts of each kind.
    """
    started = time.monotonic()
    counts = f"{scale.chat} chats, {scale.safety} safety pairs, {scale.helpful} x {scale.answers} answers"
    progress(f"microworld data, seed {seed}: {counts}")
    data, models = folder / "data", folder / "models"
    settings = {"quickstart": "microworld", "seed": seed, "scale": asdict(scale), "per_kind": per_kind}
    write_json(folder / RECORD, {"settings": settings})
    write_data(data, scale, seed)
    recipes = {"SFT": sft_recipe(data, MICROWORLD, models / "SFT", scale, seed)} | {
        name: method_recipe(method, method.beta, data, models / "SFT", models / name, scale, seed)
        for name, method in METHODS.items()
    }
    evaluations = [_evaluate("base", MICROWORLD, folder, seed, per_kind, progress)]
    for name, recipe in recipes.items():
        run = train(load_recipe(write_recipe(folder / "recipes" / f"{name}.yaml", recipe)))
        progress(f"{name}: trained {recipe['max_steps']} steps in {run.seconds:.0f} s")
        evaluations.append(_evaluate(name, models / name, folder, seed, per_kind, progress))
    report = build_report(
        evaluations,
        folder,
        title="Safe and helpful, on the microworld",
        baseline="SFT",
        context={
            "seed": f"{seed} (data, training order and sampling)",
            "budget": f"{scale.steps} steps of {scale.batch_size} groups per method, after {scale.sft_steps} of SFT",
            "methods": "; ".join(f"{name}: {m.summary}, beta {m.beta:g}" for name, m in METHODS.items()),
        },
    )
    own_recipe = folder / OWN_RECIPE_FILE
    write_text(own_recipe, OWN_RECIPE)
    return QuickstartResult(evaluations, report, own_recipe, time.monotonic() - started)


def check_folder(folder: Path) -> None:
    """Refuse an output folder that is neither new nor empty nor that of an earlier quickstart.

    Raises:
        BfpoError: if it is a file, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise BfpoError(f"{folder}: this is a file; name a folder with --output")
    if folder.exists() and any(folder.iterdir()) and not (folder / RECORD).exists():
        raise BfpoError(
            f"{folder}: not empty, and without {RECORD} of an earlier quickstart; name another folder with --output"
        )


def remove_quickstart(folder: Path) -> None:
    """Remove all that an earlier quickstart wrote to a folder; a new or empty folder stays as it is.

    Raises:
        BfpoError: if the folder holds anything else, or another process is using it; then nothing is removed.
    """
    check_folder(folder)
    if not folder.exists():
        return
    with sole_user(folder):
        for path in sorted(folder.rglob("*")):
            if (path.is_symlink() or not path.is_dir()) and not _is_written(path, folder):
                raise BfpoError(
                    f"{path}: no quickstart wrote this, or it was changed since, so --fresh removes nothing; move it "
                    "away, or name another folder with --output"
                )
        # The record last, so that a removal that was interrupted can be repeated.
        for path in sorted(folder.iterdir(), key=lambda path: path.name == RECORD):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_written(path: Path, folder: Path) -> bool:
    """Whether a quickstart wrote this file, as it is."""
    place = path.relative_to(folder)
    if place == Path(OWN_RECIPE_FILE):
        return path.read_text("utf-8", errors="replace") == OWN_RECIPE
    # A file that was being written when the process was killed has a name of its own.
    return any(each.as_posix() in _WRITTEN for each in (place, *place.parents)) or path.match(".*.partial")


def _evaluate(
    name: str, model: Path, folder: Path, seed: int, per_kind: int, progress: Callable[[str], None]
) -> Evaluation:
    started = time.monotonic()
    suite = load_suite("microworld", per_kind=per_kind)
    evaluation = evaluate(model, suite, name=name, decoding=replace(suite.decoding, seed=seed))
    evaluation.save(folder / "evaluations" / name)
    scores = ", ".join(f"{key} {evaluation.scores[key].value:.2f}" for key in FACTORS)
    progress(f"{name}: {scores} ({time.monotonic() - started:.0f} s)")
    return evaluation


def write_data(folder: Path, scale: Scale, seed: int, world: World = W0) -> None:
    """Write the `data_sets` of a world."""
    for name, rows in data_sets(scale, seed, world).items():
        write_rows(folder / name, rows)


def data_sets(scale: Scale, seed: int, world: World = W0) -> dict[str, list[dict[str, Any]]]:
    """A world's three data sets in the shapes of UltraChat, PKU-SafeRLHF and UltraFeedback, by file name."""
    return {
        "chat.jsonl": chat_set(scale.chat, seed),
        "safety.jsonl": safety_set(world.pairs or scale.safety, seed, world=world),
        "helpful.jsonl": helpfulness_set(scale.helpful, seed, answers=scale.answers, score_noise=world.order_noise),
    }


def sft_recipe(
    data: Path, model: Path, output: Path, scale: Scale, seed: int, *, chat_only: bool = False
) -> dict[str, Any]:
    """The paper's first stage: SFT on the chat data and, unless ``chat_only``, safer answers of the safety set."""
    chat = {"name": "chat", "path": str(data / "chat.jsonl")}
    safer = {"name": "safety", "path": str(data / "safety.jsonl"), "fraction": 0.2, "prefer": "safer"}
    return {
        "stage": "sft",
        "model": str(model),
        "data": [chat] if chat_only else [chat, safer],
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
    """One method, starting from the SFT model, with the same number of steps and groups as the others."""
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
        # All methods start from the same model, so the first one's reference serves them all.
        "reference_cache": str(output.parent / "reference"),
        "seed": seed,
    }


def write_recipe(path: Path, recipe: Mapping[str, Any]) -> Path:
    """Write a recipe as YAML and return its path."""
    write_text(path, yaml.safe_dump(dict(recipe), sort_keys=False))
    return path
