"""The order of the real-model study's runs: settings are tuned on validation pairs, then test seeds run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from studies.real.data import KINDS, State
from studies.real.jobs import START, Job, Setup, run_job
from studies.real.methods import ABLATIONS, METHODS, NOTHING, Point
from studies.sharing import run_first

STATES: tuple[State, ...] = ("clean", "flips", "conflict")
# States that settings are tuned in; flips takes those of the other state whose flags err.
TUNED: tuple[State, ...] = ("conflict", "clean")
TUNING_SEED = 100
TEST_SEEDS = (0, 1, 2)

Results = Mapping[Job, Mapping[str, Any]]


def read_results(folder: Path) -> dict[Job, dict[str, Any]]:
    """The results so far."""
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
    return {Job(**result["job"]): result for result in found}


def shares(result: Mapping[str, Any], by: str = "mean") -> dict[str, float]:
    """Share of the pairs of each kind whose chosen answer is the likelier one, by mean per token or by sum."""
    return {kind: float(np.mean(np.array(result["likelihoods"][kind][by]) > 0)) for kind in KINDS}


def value(result: Mapping[str, Any]) -> float:
    """Criterion of tuning: half for the mixed pairs, a quarter each for the edge and the helpful ones."""
    found = shares(result)
    return found["mixed"] / 2 + found["edge"] / 4 + found["helpful"] / 4


def chosen(state: State, method: str, results: Results) -> Point | None:
    """The point with the best value on validation pairs; None until all points have run."""
    state = state if state in TUNED else TUNED[0]
    name = (METHODS | ABLATIONS)[method].tuned_as or method
    jobs = [Job.at(state, name, point, TUNING_SEED, "validation") for point in METHODS[name].points]
    if any(job not in results for job in jobs):
        return None
    best = int(np.argmax([value(results[job]) for job in jobs]))
    return METHODS[name].points[best]


def wanted(results: Results) -> Iterator[Job]:
    """Every run that can be named so far, the first to do first."""
    for split in ("validation", "test"):
        yield Job.at("clean", START, NOTHING, 0, split)
    for state in TUNED:
        for name, method in METHODS.items():
            for point in method.points:
                yield Job.at(state, name, point, TUNING_SEED, "validation")
    for state in TUNED:
        yield from _tests(state, [*METHODS], results)
    yield from _tests("clean", [*ABLATIONS], results)
    yield Job.at("clean", START, NOTHING, 0, "answers")
    for name in METHODS:
        point = chosen("clean", name, results)
        if point:
            yield Job.at("clean", name, point, 0, "answers")
    yield from _tests("flips", [*METHODS], results)


def _tests(state: State, names: Sequence[str], results: Results) -> Iterator[Job]:
    for name in names:
        point = chosen(state, name, results)
        if point:
            yield from (Job.at(state, name, point, seed, "test") for seed in TEST_SEEDS)


def run_next(setup: Setup) -> dict[str, Any] | None:
    """Run the first job that is neither done nor running in another process; None if there is none."""
    found = run_first(
        setup.folder,
        wanted(read_results(setup.results)),
        lambda job: job.name,
        lambda job: (setup.results / f"{job.name}.json").exists(),
        lambda job: run_job(job, setup),
    )
    return found and found[1]
