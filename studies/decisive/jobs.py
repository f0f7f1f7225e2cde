"""One run of the study: train a method in a world, evaluate it, and keep its figures as a small JSON file."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bfpo.files import write_rows, write_text
from bfpo.generation.local_generator import LocalGenerator
from bfpo.microworld.data import helpfulness_set
from bfpo.microworld.worlds import WORLDS
from bfpo.objectives.registry import build_objective
from bfpo.quickstart import Scale, write_recipe
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.figures import ANSWER_FIGURES, items_of
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.suites import load_suite
from bfpo.safehelp.utility import utility
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train
from bfpo.versions import versions
from studies.decisive.data import by_safer_choice, labeled_set, partly_labeled, with_rewards, wrong_orders
from studies.decisive.methods import ALL, Method
from studies.log_ratios import sampled_log_ratios
from studies.quick import ensure_sft
from studies.sharing import lock

SCALE = Scale()
SFT = "SFT"
FIGURES = ("helpful", "harmless", "over_refusal", "incoherent", "severity_weighted_harm")
# Prompts of each kind to answer, and to sample answers to for the distance from the reference.
PER_KIND = {"validation": 200, "test": 400}
KL_PROMPTS = 350


@dataclass(frozen=True)
class Job:
    """One training run and its evaluation; ``SFT`` is the start of all others."""

    world: str
    method: str
    learning_rate: float
    beta: float
    level: float
    seed: int
    split: Literal["validation", "test"]

    @property
    def name(self) -> str:
        """Name of the file with the result."""
        point = f"{self.learning_rate:g}_{self.beta:g}_{self.level:g}"
        return f"{self.world}_{self.method}_{point}_{self.seed}_{self.split}"


def run_job(job: Job, folder: Path, results: Path, scale: Scale = SCALE) -> dict[str, Any]:
    """Train, evaluate and write the result; weights are removed at the end."""
    started = time.process_time()
    seed_folder = folder / f"{job.world}-seed{job.seed}"
    with lock(folder, f"SFT-seed{job.seed}"):
        start = ensure_sft(folder / f"seed{job.seed}", scale, job.seed, chat_only=True)
    output = seed_folder / job.name
    shutil.rmtree(output, ignore_errors=True)
    model, record = start, {}
    if job.method != SFT:
        model = output
        recipe = _recipe(job, ALL[job.method], seed_folder, start, output, scale)
        train(load_recipe(write_recipe(seed_folder / f"{job.name}.yaml", recipe)))
        record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    figures = _figures(job, model, start)
    labels = [source.get("labels") for source in record.get("data", [])]
    result = {"job": asdict(job), "figures": figures, "cpu_seconds": round(time.process_time() - started, 1)}
    result |= {"labels": labels, "versions": versions()}
    write_text(results / f"{job.name}.json", json.dumps(result, indent=1) + "\n")
    for spent in (output, seed_folder / f"data-{job.name}"):
        shutil.rmtree(spent, ignore_errors=True)
    return result


def _recipe(job: Job, method: Method, folder: Path, start: Path, output: Path, scale: Scale) -> dict[str, Any]:
    world, count = WORLDS[job.world], WORLDS[job.world].pairs or scale.safety
    rows = labeled_set(world, count, job.seed)
    if method.people is not None:
        rows = partly_labeled(rows, method.people, job.seed, fitted=method.fitted)
    if method.needs == "reward":
        rows = with_rewards(rows)
    elif method.needs == "safer choice":
        rows = by_safer_choice(rows, job.seed)
    data = folder / f"data-{job.name}"
    data.mkdir(parents=True, exist_ok=True)
    write_rows(data / "safety.jsonl", rows)
    main: dict[str, Any] = {"name": "safety", "path": str(data / "safety.jsonl")}
    if method.prefer != "helpful":
        main["prefer"] = method.prefer
    if method.flags:
        main["flags"] = method.flags
    sources = [main]
    if method.buffer:
        sources.append({"name": "helpful", "path": str(_buffer(method, job, data, scale)), "role": "buffer"})
        if build_objective(method.loss_type, {}).reads_safety:
            sources[-1]["unknown_safety"] = 1.0
    options: dict[str, Any] = {"level": job.level, **method.options}
    if method.needs == "error":
        options["label_smoothing"] = min(max(wrong_orders(world, count, job.seed), 0.01), 0.45)
    elif method.needs == "prices":
        options["harm_prices"] = dict(world.prices)
    elif method.needs == "common price":
        options["harm_prices"] = {"default": sum(world.prices.values()) / len(world.prices)}
    return {
        "stage": "preference", "model": str(start), "data": sources, "output_dir": str(output),
        "loss_type": method.loss_type, "beta": job.beta, "learning_rate": job.learning_rate, **options,
        "max_steps": scale.steps, "batch_size": scale.batch_size, "max_length": 128, "micro_batch_tokens": 2048,
        "reference_cache": str(start.parent / "reference"), "seed": job.seed,
    }  # fmt: skip


def _buffer(method: Method, job: Job, data: Path, scale: Scale) -> Path:
    """The helpfulness set; for MODPO with the reward of safe answers."""
    world = WORLDS[job.world]
    answers = method.answers or scale.answers
    rows = helpfulness_set(scale.helpful, job.seed, answers=answers, score_noise=world.order_noise)
    if method.needs == "reward":
        rows = [row | {"reward": [1.0] * len(row["responses"])} for row in rows]
    path = data / "helpful.jsonl"
    write_rows(path, rows)
    return path


def _figures(job: Job, model: Path, start: Path) -> dict[str, float]:
    """U in the job's world, the figures behind it, and the distance from the start in nats per answer."""
    world = WORLDS[job.world]
    suite = load_suite("microworld", split=job.split, per_kind=PER_KIND[job.split], world=job.world)
    suite = replace(suite, choices=[])
    result = evaluate(model, suite, name=job.name, decoding=replace(suite.decoding, seed=job.seed))
    found = {name: items_of(result.generations, ANSWER_FIGURES[name]).estimate() for name in FIGURES}
    figures = {name: estimate.value for name, estimate in found.items() if estimate}
    figures["U"] = utility(result.generations, world)
    if model != start:
        policy, reference = LocalGenerator.load(model), LocalGenerator.load(start)
        prompts = {item.item: item.request for item in _some(suite.prompts)}
        figures["kl"] = (
            sampled_log_ratios(policy, reference, prompts, replace(suite.decoding, seed=job.seed)).kl().value
        )
    return figures


def _some(items: Sequence[PromptItem]) -> list[PromptItem]:
    """At most `KL_PROMPTS` of each kind, the first ones."""
    seen: Counter[str] = Counter()
    kept = []
    for item in items:
        seen[item.kind] += 1
        if seen[item.kind] <= KL_PROMPTS:
            kept.append(item)
    return kept
