"""Report of the engine benchmark: tables and plots of the results so far."""

from __future__ import annotations

import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

from figures import (
    MEANING,
    SIDES,
    Result,
    epoch_rows_per_second,
    flops_a_token,
    rows_per_second,
    share_of_peak,
    tokens_per_second,
)


def median_and_range(values: Sequence[float], digits: int) -> str:
    """Median, with minimum and maximum."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def median(results: Sequence[Result], figure: Any) -> float:
    """Median of a figure over results."""
    return statistics.median(figure(result) for result in results)


def by_side(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results of each side."""
    sides: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        sides[result["case"]["side"]].append(result)
    return sides


def factors(ours: Sequence[Result], theirs: Sequence[Result]) -> tuple[float, float]:
    """Speedup of ours, and the speedup that the executed FLOPs predict."""
    measured = median(ours, tokens_per_second) / median(theirs, tokens_per_second)
    return measured, median(theirs, flops_a_token) / median(ours, flops_a_token)


def epoch_factor(ours: Sequence[Result], theirs: Sequence[Result]) -> float:
    """Speedup of ours in a run of one epoch, the reference pass included."""
    return median(ours, epoch_rows_per_second) / median(theirs, epoch_rows_per_second)


def table(results: Sequence[Result]) -> list[str]:
    """Table of all sides at one precision and one choice of weights."""
    sides = by_side(results)
    ours = sides["ours"]
    has_epochs = all("reference_seconds" in run for run in results)
    lines = [
        "| side | runs x steps | pairs/s | tokens/s | speedup of ours | FLOPs predict | in one epoch, with the "
        "reference | net memory, MB | share of the matmul peak |",
        "|---" * 9 + "|",
    ]
    for side in (side for side in SIDES if side in sides):
        runs = sides[side]
        measured, predicted = factors(ours, runs)
        epoch = epoch_factor(ours, runs) if has_epochs else None
        memory = median_and_range([run["net_mb"] for run in runs], 0)
        lines.append(
            f"| {side}: {MEANING[side]} | {len(runs)} x {len(runs[0]['step_seconds'])} "
            f"| {median_and_range([rows_per_second(run) for run in runs], 2)} | {median(runs, tokens_per_second):.0f} "
            f"| {measured:.2f}x | {predicted:.2f}x | {'' if epoch is None else f'{epoch:.2f}x'} | {memory} "
            f"| {100 * median(runs, share_of_peak):.0f} % |"
        )
    return lines


def losses(results: Sequence[Result]) -> list[str]:
    """Sentence on the agreement of the losses of all sides."""
    curves = {result["case"]["side"]: result["losses"] for result in results}
    if "ours" not in curves:
        return []
    apart = max(abs(a - b) / abs(a) for curve in curves.values() for a, b in zip(curves["ours"], curve, strict=True))
    return [
        f"On the same eight short pairs per step, over {len(curves['ours'])} steps in float32, the losses of "
        f"{', '.join(curves)} agree to a relative {apart:.0e} (mean-reduced IPO, TRL's form).",
        "",
    ]


def real_pairs(results: Sequence[Result]) -> list[str]:
    """Tables of SmolLM2 on real pairs, by what is trained."""
    lines: list[str] = []
    for trained in dict.fromkeys(result["case"]["trained"] for result in results):
        own = [result for result in results if result["case"]["trained"] == trained]
        if {result["case"]["side"] for result in own} < {"ours", "shipped", "compact"}:
            continue
        title = "LoRA" if trained == "lora" else f"{trained} weights"
        tokens = f"{own[0]['tokens_a_row']:.0f} tokens on average (a prompt with each answer)"
        lines += [
            f"## SmolLM2-135M on real pairs, fp32, {title}",
            "",
            f"People's pairs, not distributed, in batches of 8 with {tokens}.",
            "",
            *table(own),
            "",
        ]
    return lines


def two_processes(results: Sequence[Result]) -> list[str]:
    """Two processes beside one, with one thread each."""
    one, two = ([result for result in results if result["case"]["processes"] == number] for number in (1, 2))
    if not (one and two):
        return []
    speeds = [[rows_per_second(run) for run in runs] for runs in (one, two)]
    gains = [after / before for before, after in zip(*speeds, strict=False)]
    return [
        "## Two processes",
        "",
        f"With one thread each, on two cores, float32 and all weights, batches of 16 pairs over both: two processes "
        f"train {median_and_range(gains, 2)} times as fast as one ({len(gains)} pairs of runs in turn): "
        f"{median_and_range(speeds[0], 2)} and {median_and_range(speeds[1], 2)} pairs/s.",
        "",
    ]


def answers(results: Sequence[Result]) -> list[str]:
    """Table of groups of K answers against their pairs."""
    if not results:
        return []
    lines = [
        "## K answers per prompt",
        "",
        "Prompts with K answers are trained as one group each, or as all their pairs through the same engine. Seconds "
        "are for a prompt of average length.",
        "",
        "| K | pairs | seconds, as a group | seconds, as pairs | share | FLOPs predict |",
        "|---|---|---|---|---|---|",
    ]
    for number in sorted({result["case"]["workload"]["answers"] for result in results}):
        pairs = number * (number - 1) // 2
        sides = by_side([result for result in results if result["case"]["workload"]["answers"] == number])
        group = [1 / rows_per_second(run) for run in sides["groups"]]
        pairwise = [pairs / rows_per_second(run) for run in sides["ours"]]
        flops = [median(sides[side], lambda run: run["flops_needed_a_row"]["shared"]) for side in ("groups", "ours")]
        share = statistics.median(group) / statistics.median(pairwise)
        lines.append(
            f"| {number} | {pairs} | {median_and_range(group, 2)} | {median_and_range(pairwise, 2)} "
            f"| {100 * share:.1f} % | {100 * flops[0] / flops[1] / pairs:.1f} % |"
        )
    return [*lines, ""]


def sweep(results: Sequence[Result], title: str, columns: str, label: Any) -> list[str]:
    """Table of ours against compact over the values of one variable."""
    groups: dict[Any, list[Result]] = defaultdict(list)
    for result in results:
        groups[label(result["case"]["workload"], result)].append(result)
    complete = {name: by_side(runs) for name, runs in groups.items() if len(by_side(runs)) == 2}
    if not complete:
        return []
    lines = [
        f"## {title}",
        "",
        f"| {columns} | ours, pairs/s | compact, pairs/s | speedup of ours | FLOPs predict | share of the peak "
        "| net memory, ours | compact |",
        "|---" * (columns.count("|") + 8) + "|",
    ]
    for name, sides in complete.items():
        ours, compact = sides["ours"], sides["compact"]
        measured, predicted = factors(ours, compact)
        lines.append(
            f"| {name} | {median_and_range([rows_per_second(run) for run in ours], 2)} "
            f"| {median_and_range([rows_per_second(run) for run in compact], 2)} | {measured:.2f}x | {predicted:.2f}x "
            f"| {100 * median(ours, share_of_peak):.0f} % | {median(ours, lambda run: run['net_mb']):.0f} MB "
            f"| {median(compact, lambda run: run['net_mb']):.0f} MB |"
        )
    return [*lines, ""]


def plot(results: Sequence[Result], path: Path) -> None:
    """Plot the loss curves over each other, and the speeds."""
    figure, (curves, bars) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    same = [result for result in results if result["kind"] == "losses"]
    for width, result in zip((8, 6.5, 5, 3, 1), same, strict=False):
        steps = range(1, len(result["losses"]) + 1)
        curves.plot(steps, result["losses"], linewidth=width, label=result["case"]["side"])
    curves.set(xlabel="step", ylabel="loss", title="The same eight pairs: one curve")
    curves.legend(frameon=False)
    speed = by_side(headline_results(results))
    sides = [side for side in SIDES if side in speed]
    rates = [[rows_per_second(run) for run in speed[side]] for side in sides]
    bars.barh(sides, [statistics.median(each) for each in rates], color="0.8")
    for at, each in enumerate(rates):
        bars.plot(each, [at] * len(each), "k|")
    bars.invert_yaxis()
    bars.set(xlabel="pairs/s", title="fp32, all weights: median and every run")
    figure.savefig(path, dpi=150)


def headline_results(results: Sequence[Result], precision: str = "fp32", trained: str = "all") -> list[Result]:
    """Speeds at one precision and one choice of weights; for each side, those with the most steps."""
    chosen = []
    for runs in by_side([result for result in results if result["kind"] == "speed"]).values():
        own = [r for r in runs if (r["case"]["precision"], r["case"]["trained"]) == (precision, trained)]
        steps = max((r["case"]["steps"] for r in own), default=0)
        chosen += [r for r in own if r["case"]["steps"] == steps]
    return chosen


def write_report(results: Sequence[Result], folder: Path) -> None:
    """Write ``engine.md`` and ``engine.png``."""
    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", "trl"))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
    lines = [
        "# The engine against TRL",
        "",
        "How fast does bfpo's engine train beside TRL, and in how much memory?",
        "",
        f"**{_answer(results)}**",
        "",
        "![Losses and speeds](engine.png)",
        "",
    ]
    generated = [result for result in results if result["kind"] != "real"]
    for precision, trained in dict.fromkeys((r["case"]["precision"], r["case"]["trained"]) for r in generated):
        own = headline_results(results, precision, trained)
        if {result["case"]["side"] for result in own} >= {"ours", "shipped"}:
            lines += [f"## {precision}, {trained} weights", "", *_about(own), *table(own), ""]
    lines += [*_more_tables(results), "## What was measured", ""]
    lines += [
        "Generated pairs with 139 tokens per prompt and 110 per answer on average (lognormal), batches of 8, and a "
        "random Llama with 28.3M weights. Every run is a fresh process, and the sides take turns. Tables show medians "
        "with ranges over runs. "
        f"{packages}; {platform.machine()}, {device}.",
        "",
        "*pairs/s* refers to pairs of average length. *FLOPs predict* is the ratio of the FLOPs that both sides "
        "execute, by count (including padding, scored positions, recomputation and an online reference). *Net memory* "
        "is the peak resident set minus imports, weights, gradients and optimizer. *Share of the matmul peak* compares "
        "the unavoidable FLOPs (no padding or recomputation; the prompt once for ours, twice for TRL) with the best "
        "4096-cubed product in the same process. The first step is not timed, nor is a reference pass among the steps. "
        "*In one epoch* adds it: TRL as shipped scores the reference in every step, and all others once before the "
        "first, so that further epochs don't pay for it again.",
        "",
        "The pairs come in batches of about one length, as grouping by length makes them of a large set: of fifty "
        "batches that are sorted, six. *best* and *compact* train on them in this order, the others on the same pairs "
        "in a random one.",
        "",
        *losses([result for result in results if result["kind"] == "losses"]),
        "## To run it again",
        "",
        "Made by `make bench` (the first table; half an hour) and `make bench-full` (hours), resumable, on 2 cores; "
        "SmolLM2's tables by `python benchmarks/engine.py real --data FILE` (an hour).",
    ]
    plot(results, folder / "engine.png")
    (folder / "engine.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _about(results: Sequence[Result]) -> list[str]:
    """A sentence on the processor, as torch names it."""
    names = {result.get("processor") for result in results}
    if names == {None}:
        return [
            "Measured before the reference pass was timed by itself. TRL at its best is missing: in these runs its "
            "pairs were to be grouped by length, and transformers groups nothing in a set of six batches.",
            "",
        ]
    return [f"Processor: {', '.join(sorted(map(str, names)))}.", ""]


def _answer(results: Sequence[Result]) -> str:
    sides = by_side(headline_results(results))
    rivals = [side for side in ("shipped", "best", "compact") if side in sides]
    if "ours" not in sides or not rivals:
        return "Not finished: the runs in float32 with all weights are missing."
    ours = sides["ours"]
    net_mb = median(ours, lambda run: run["net_mb"])
    shares: list[str] = []
    for side in rivals:
        factor, share = factors(ours, sides[side])[0], net_mb / median(sides[side], lambda run: run["net_mb"])
        epoch = ""
        if all("reference_seconds" in run for run in [*ours, *sides[side]]):
            epoch = f"({epoch_factor(ours, sides[side]):.2f} times in one epoch, with its pass for the reference) "
        shares.append(f"{factor:.2f} times as fast as {side} {epoch}in {share:.0%} of its net memory")
    return f"In float32 with all weights, ours is {', '.join(shares)}."


def _more_tables(results: Sequence[Result]) -> list[str]:
    """Groups of K answers, lengths and models, as far as they were measured."""

    def kind(name: str) -> list[Result]:
        return [result for result in results if result["kind"] == name]

    lines = real_pairs(kind("real")) + two_processes(kind("processes")) + answers(kind("answers"))
    lines += sweep(
        kind("lengths"),
        "Lengths",
        "prompt | answer",
        lambda workload, _: f"{workload['prompt']} | {workload['answer']}",
    )
    return lines + sweep(
        kind("models"),
        "Models",
        "width x layers | weights",
        lambda workload, result: f"{workload['hidden']} x {workload['layers']} | {result['weights'] / 1e6:.1f}M",
    )
