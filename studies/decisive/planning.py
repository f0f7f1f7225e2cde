"""The order of the study's runs: a method's settings are tuned on validation prompts, then its test seeds run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bfpo.quickstart import Scale
from studies.decisive.jobs import SCALE, SFT, Job, run_job
from studies.decisive.methods import ALL, ALL_WORLDS, METHODS, TUNED, Method
from studies.sharing import run_first

TUNING_SEEDS = (100, 101)
TEST_SEEDS: Mapping[str, tuple[int, ...]] = {world: tuple(range(10 if world == "W3" else 5)) for world in ALL_WORLDS}
BETA = 0.1
# The settings to search one after the other, by their place in a point: beta, learning rate, level; and their steps.
AXES = ((1, 2.0), (0, 2.0), (2, 4.0))
# The methods that claims 1 to 5 of the plan are about run first.
CLAIMED = ("BFPO", "BFPO-verdict", "BFPO-prices", "BFPO-common-price", "DPO-safe-first", "rDPO-safe-first")
# Times that an axis may grow because its best point lies at its end.
MOST_EXTENSIONS = 4

# Learning rate, beta and the weight of the level's anchor.
Point = tuple[float, float, float]
Results = Mapping[Job, Mapping[str, Any]]


def read_results(folder: Path) -> dict[Job, dict[str, Any]]:
    """The results so far."""
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
    return {Job(**result["job"]): result for result in found}


def tuned_methods() -> list[str]:
    """The methods of the decisive study that have settings of their own."""
    return [name for name, method in METHODS.items() if not method.tuned_as]


def tuning_jobs(method: str, point: Point) -> list[Job]:
    """The validation runs of a method at one point."""
    worlds = [world for world in ALL[method].worlds if world in TUNED]
    return [Job(world, method, *point, seed, "validation") for world in worlds for seed in TUNING_SEEDS]


def grid(method: str, results: Results) -> list[Point]:
    """The points to tune a method on, as far as they can be named: one axis after the other, from the best so far.

    An axis has three points, and further ones while its best point lies at an end.
    """
    best: Point | None = (ALL[method].learning_rate, BETA, ALL[method].level)
    points: list[Point] = []
    for axis, factor in AXES:
        points += _line(best, axis, factor, method, results)
        best = _best(method, points, results)
        if best is None:
            break
    return [*dict.fromkeys(points)]


def _line(start: Point, axis: int, factor: float, method: str, results: Results) -> list[Point]:
    """The points of one axis through a point."""
    points = [_moved(start, axis, 1 / factor), start, _moved(start, axis, factor)]
    for _ in range(MOST_EXTENSIONS):
        best = _best(method, points, results)
        if best not in (points[0], points[-1]):
            break
        new = _moved(best, axis, 1 / factor if best == points[0] else factor)
        points = [new, *points] if best == points[0] else [*points, new]
    return points


def _moved(point: Point, axis: int, factor: float) -> Point:
    rate, beta, level = (value * factor if at == axis else value for at, value in enumerate(point))
    return rate, beta, level


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
    name = ALL[method].tuned_as or method
    return _best(name, grid(name, results), results)


def near(method: str, results: Results) -> Point | None:
    """The point of a method's grid whose distance from the start is nearest to that of BFPO at its best."""
    best = chosen("BFPO", results)
    name = ALL[method].tuned_as or method
    if best is None or chosen(name, results) is None:
        return None
    target = np.log(_distance("BFPO", best, results))
    return min(grid(name, results), key=lambda point: abs(np.log(_distance(name, point, results)) - target))


def _distance(method: str, point: Point, results: Results) -> float:
    """Mean KL of the runs in W2, in nats per answer."""
    jobs = [job for job in tuning_jobs(method, point) if job.world == "W2"]
    return float(np.mean([results[job]["figures"]["kl"] for job in jobs]))


def wanted(results: Results, methods: Mapping[str, Method] = METHODS) -> Iterator[Job]:
    """Every run of some methods that can be named so far, the first to do first."""
    for method in sorted(methods, key=lambda name: name in METHODS and name not in CLAIMED):
        setting = methods[method]
        for point in [] if setting.tuned_as else grid(method, results):
            yield from tuning_jobs(method, point)
        yield from _test_jobs(method, setting.worlds, chosen(method, results))
        # Distances are compared where BFPO's was measured.
        if "W2" in setting.worlds:
            yield from _test_jobs(method, [world for world in setting.worlds if world in TUNED], near(method, results))
    for world in ALL_WORLDS:
        if any(world in method.worlds for method in methods.values()):
            for seed in TEST_SEEDS[world]:
                yield Job(world, SFT, 0.0, 0.0, 0.0, seed, "test")


def _test_jobs(method: str, worlds: Iterable[str], point: Point | None) -> list[Job]:
    """The test runs of a method at one point; none while the point isn't known."""
    if point is None:
        return []
    return [Job(world, method, *point, seed, "test") for world in worlds for seed in TEST_SEEDS[world]]


def run_next(
    folder: Path, results: Path, scale: Scale = SCALE, methods: Mapping[str, Method] = METHODS
) -> dict[str, Any] | None:
    """Run the first job that is neither done nor running in another process; None if there is none."""
    found = run_first(
        folder,
        wanted(read_results(results), methods),
        lambda job: job.name,
        lambda job: (results / f"{job.name}.json").exists(),
        lambda job: run_job(job, folder, results, scale),
    )
    return found and found[1]
