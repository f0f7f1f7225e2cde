"""The order of the study's runs: settings are tuned on validation prompts first, then test seeds run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bfpo.quickstart import Scale
from studies.decisive.jobs import SCALE, SFT, Job, run_job
from studies.decisive.methods import ALL_WORLDS, METHODS, TUNED
from studies.sharing import run_first

TUNING_SEEDS = (100, 101)
TEST_SEEDS: Mapping[str, tuple[int, ...]] = {world: tuple(range(10 if world == "W3" else 5)) for world in ALL_WORLDS}
LEARNING_RATE, BETAS = 3e-4, (0.05, 0.1, 0.2, 0.4)
# Times that an axis may grow because its best point lies at its end.
MOST_EXTENSIONS = 4

Point = tuple[float, float]
Results = Mapping[Job, Mapping[str, Any]]


def read_results(folder: Path) -> dict[Job, dict[str, Any]]:
    """The results so far."""
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
    return {Job(**result["job"]): result for result in found}


def tuned_methods() -> list[str]:
    """The methods that have settings of their own."""
    return [name for name, method in METHODS.items() if not method.tuned_as]


def tuning_jobs(method: str, point: Point) -> list[Job]:
    """The validation runs of a method at one learning rate and beta."""
    worlds = [world for world in METHODS[method].worlds if world in TUNED]
    return [Job(world, method, *point, seed, "validation") for world in worlds for seed in TUNING_SEEDS]


def grid(method: str, results: Results) -> list[Point]:
    """The points to tune a method on: betas at one learning rate, then learning rates at the best beta.

    Either axis is extended by doubling or halving until its best point lies inside.
    """
    points = _extended([(LEARNING_RATE, beta) for beta in BETAS], 1, method, results)
    best = _best(method, points, results)
    if best is None:
        return points
    rates = [(rate, best[1]) for rate in (LEARNING_RATE / 2, LEARNING_RATE, LEARNING_RATE * 2)]
    return [*dict.fromkeys([*points, *_extended(rates, 0, method, results)])]


def _extended(points: list[Point], axis: int, method: str, results: Results) -> list[Point]:
    """Points along an axis, with further ones while the best of those that have run lies at an end."""
    for _ in range(MOST_EXTENSIONS):
        best = _best(method, points, results)
        if best not in (points[0], points[-1]):
            break
        factor = 0.5 if best == points[0] else 2.0
        new: Point = (best[0] * factor, best[1]) if axis == 0 else (best[0], best[1] * factor)
        points = [new, *points] if factor < 1 else [*points, new]
    return points


def _best(method: str, points: Sequence[Point], results: Results) -> Point | None:
    """The point with the highest mean U; None until all have run."""
    values = [value(method, point, results) for point in points]
    return None if None in values else points[int(np.argmax(np.array(values, dtype=float)))]


def value(method: str, point: Point, results: Results) -> float | None:
    """Mean U of a method's validation runs at a point, over worlds and seeds; None until all have run."""
    jobs = tuning_jobs(method, point)
    if any(job not in results for job in jobs):
        return None
    return float(np.mean([results[job]["figures"]["U"] for job in jobs]))


def chosen(method: str, results: Results) -> Point | None:
    """The point with the best mean U on validation prompts; None until the grid has run."""
    name = METHODS[method].tuned_as or method
    return _best(name, grid(name, results), results)


def near(method: str, results: Results) -> Point | None:
    """The point of a method's grid whose distance from the start is nearest to that of BFPO at its best."""
    best = chosen("BFPO", results)
    name = METHODS[method].tuned_as or method
    if best is None or chosen(name, results) is None:
        return None
    target = np.log(_distance("BFPO", best, results))
    return min(grid(name, results), key=lambda point: abs(np.log(_distance(name, point, results)) - target))


def _distance(method: str, point: Point, results: Results) -> float:
    """Mean KL of the runs in W2, in nats per answer."""
    jobs = [job for job in tuning_jobs(method, point) if job.world == "W2"]
    return float(np.mean([results[job]["figures"]["kl"] for job in jobs]))


def wanted(results: Results) -> Iterator[Job]:
    """Every run that can be named so far, the first to do first."""
    for method in tuned_methods():
        for point in grid(method, results):
            yield from tuning_jobs(method, point)
    for world in ALL_WORLDS:
        for seed in TEST_SEEDS[world]:
            yield Job(world, SFT, 0.0, 0.0, seed, "test")
    for method, setting in METHODS.items():
        yield from _test_jobs(method, setting.worlds, chosen(method, results))
        yield from _test_jobs(method, [world for world in setting.worlds if world in TUNED], near(method, results))


def _test_jobs(method: str, worlds: Iterable[str], point: Point | None) -> list[Job]:
    """The test runs of a method at one point; none while the point isn't known."""
    if point is None:
        return []
    return [Job(world, method, *point, seed, "test") for world in worlds for seed in TEST_SEEDS[world]]


def run_next(folder: Path, results: Path, scale: Scale = SCALE) -> dict[str, Any] | None:
    """Run the first job that is neither done nor running in another process; None if there is none."""
    found = run_first(
        folder,
        wanted(read_results(results)),
        lambda job: job.name,
        lambda job: (results / f"{job.name}.json").exists(),
        lambda job: run_job(job, folder, results, scale),
    )
    return found and found[1]
