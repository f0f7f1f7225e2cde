"""Study behind the quickstart: five seeds, with every method's beta chosen from one grid; resumable."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from bfpo.errors import BfpoError
from bfpo.models import MICROWORLD
from bfpo.quickstart import METHODS, Scale, method_recipe, sft_recipe, write_data, write_recipe
from bfpo.quiet import quiet_libraries
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.figures import HEADLINE
from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.suites import Split, load_suite
from bfpo.statistics.intervals import mean_interval
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train

BETAS = (0.1, 0.2, 0.4, 0.8)
SELECTION_SEED = 0


@dataclass(frozen=True)
class Job:
    """One training run and its evaluation; ``method`` is "SFT" for the first stage."""

    method: str
    beta: float | None
    seed: int
    split: Split

    @property
    def name(self) -> str:
        """Name of the file with the job's result."""
        beta = "" if self.beta is None else f"-{self.beta:g}"
        return f"{self.method}{beta}-seed{self.seed}-{self.split}"


def run_job(job: Job, folder: Path, scale: Scale) -> dict[str, float]:
    """Run one job, or read its result if there is one; the "SFT" job of a seed must run before its other jobs."""
    done = folder / "results" / f"{job.name}.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    seed_folder = folder / f"seed{job.seed}"
    model = ensure_sft(seed_folder, scale, job.seed)
    if job.method != "SFT":
        assert job.beta is not None
        output = seed_folder / f"{job.method}-{job.beta:g}"
        # A job takes a minute or two, so an interrupted one starts over.
        shutil.rmtree(output, ignore_errors=True)
        recipe = method_recipe(METHODS[job.method], job.beta, seed_folder / "data", model, output, scale, job.seed)
        train(load_recipe(write_recipe(seed_folder / "recipes" / f"{output.name}.yaml", recipe)))
        model = output
    result = _figures(_evaluate(job.method, model, job))
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps(result) + "\n", encoding="utf-8")
    return result


def ensure_sft(seed_folder: Path, scale: Scale, seed: int, *, chat_only: bool = False) -> Path:
    """Make a seed's data and SFT model if they are missing; returns the model's folder. See `sft_recipe`."""
    model = seed_folder / "SFT"
    if not (model / "run.json").exists() or not json.loads((model / "run.json").read_text())["finished"]:
        shutil.rmtree(model, ignore_errors=True)
        write_data(seed_folder / "data", scale, seed)
        recipe = sft_recipe(seed_folder / "data", MICROWORLD, model, scale, seed, chat_only=chat_only)
        train(load_recipe(write_recipe(seed_folder / "recipes" / "SFT.yaml", recipe)))
    return model


def _evaluate(name: str, model: Path, job: Job) -> Evaluation:
    suite = load_suite("microworld", split=job.split)
    return evaluate(model, suite, name=name, decoding=replace(suite.decoding, seed=job.seed))


def _figures(evaluation: Evaluation) -> dict[str, float]:
    figures = {name: evaluation.scores[name].value for name in HEADLINE}
    return figures | {"U": (figures["helpful"] + figures["harmless"]) / 2}


def chosen_betas(results: Mapping[Job, Mapping[str, float]]) -> dict[str, float]:
    """Each method's beta with the highest U on validation compositions."""
    betas = {}
    for method in METHODS:
        own = {job.beta: result["U"] for job, result in results.items() if job.method == method}
        betas[method] = max(own, key=lambda beta: own[beta])
    return betas


def run_study(
    folder: Path, scale: Scale, seeds: Sequence[int], workers: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Run the jobs without a result, several at a time, and return the figures for the report.

    Raises:
        BfpoError: if the folder holds runs of another scale.
    """
    _claim(folder, scale)

    def run(jobs: Sequence[Job]) -> dict[Job, dict[str, float]]:
        with ProcessPoolExecutor(workers, get_context("spawn"), _share_cores, (workers,)) as pool:
            results: dict[Job, dict[str, float]] = {}
            for job, result in zip(jobs, pool.map(run_job, jobs, repeat(folder), repeat(scale)), strict=True):
                results[job] = result
                progress(f"{job.name}: " + ", ".join(f"{name} {value:.3f}" for name, value in result.items()))
        return results

    sft = run([Job("SFT", None, seed, "test") for seed in seeds])
    selection = run([Job(method, beta, SELECTION_SEED, "validation") for method in METHODS for beta in BETAS])
    betas = chosen_betas(selection)
    final = run([Job(method, beta, seed, "test") for seed in seeds for method, beta in betas.items()])
    return summary(scale, seeds, betas, selection, sft | final)


def _claim(folder: Path, scale: Scale) -> None:
    """Record the scale of the folder's runs, or check that it is the given one."""
    note = folder / "scale.json"
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) != asdict(scale):
        raise BfpoError(f"{folder}: holds runs of another scale; name another folder with --output")
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(asdict(scale)) + "\n", encoding="utf-8")


def _share_cores(workers: int) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    quiet_libraries()


def summary(
    scale: Scale,
    seeds: Sequence[int],
    betas: Mapping[str, float],
    selection: Mapping[Job, Mapping[str, float]],
    final: Mapping[Job, Mapping[str, float]],
) -> dict[str, Any]:
    """Means over seeds with t intervals, and the paired differences that the report shows."""
    by_method: dict[str, dict[str, list[float]]] = {}
    for method in ("SFT", *METHODS):
        runs = [final[job] for seed in seeds for job in final if job.method == method and job.seed == seed]
        by_method[method] = {name: [run[name] for run in runs] for name in (*HEADLINE, "U")}
    rivals = [method for method in METHODS if method != "BFPO"]
    best = max(rivals, key=lambda method: sum(by_method[method]["U"]))

    def difference(method: str, name: str) -> dict[str, Any]:
        pairs = zip(by_method["BFPO"][name], by_method[method][name], strict=True)
        return asdict(mean_interval([ours - theirs for ours, theirs in pairs]))

    return {
        "scale": asdict(scale),
        "seeds": list(seeds),
        "betas": dict(betas),
        "selection": {job.name: dict(result) for job, result in selection.items()},
        "means": {
            method: {name: asdict(mean_interval(values)) for name, values in figures.items()}
            for method, figures in by_method.items()
        },
        "best_rival": best,
        "differences": {
            f"U, BFPO - {best}": difference(best, "U"),
            "harmless, BFPO - SFT": difference("SFT", "harmless"),
            "helpful, BFPO - SFT": difference("SFT", "helpful"),
        },
    }
