"""Our engine against TRL's newest DPOTrainer at the same mathematics: fresh processes, in turns, on this machine.

Every result is kept in a file, so that a benchmark that was broken off goes on; the report is made of what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from tqdm import tqdm

HERE = Path(__file__).parent
SIDES = ("ours", "lean", "shipped", "best", "compact")
MEANING = {
    "ours": "bfpo as shipped",
    "lean": "bfpo, micro-batches of 1,024 tokens",
    "shipped": "TRL's defaults but for the precision",
    "best": "TRL, reference precomputed, no checkpointing, grouped by length",
    "compact": "the same, with its GPU path's selection of positions switched on",
}
# Large freed blocks stay with the process on all sides: else one mostly times how they are given back and taken again.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**28),
}
PAIRS, STEPS = 48, 7


def run(side: str, precision: str, trained: str, steps: int, pairs: int) -> dict[str, Any]:
    """One fresh process of one side."""
    environment = os.environ | MALLOC | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, str(HERE / "side.py"), side, precision, trained, str(steps), str(pairs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(path: Path, repeats: int, precision: str, trained: str) -> list[dict[str, Any]]:
    """All sides in turns, and once on the same eight pairs a step, where the losses must coincide."""
    results = json.loads(path.read_text()) if path.exists() else []
    wanted = [(side, "losses", 0) for side in SIDES]
    wanted += [(side, "speed", repeat) for repeat in range(repeats) for side in SIDES]
    for side, kind, repeat in tqdm(wanted, disable=None):
        label = {"kind": kind, "repeat": repeat, "side": side, "precision": precision, "trained": trained}
        if any(label.items() <= result.items() for result in results):
            continue
        results.append(run(side, precision, trained, STEPS, 8 if kind == "losses" else PAIRS) | label)
        path.write_text(json.dumps(results, indent=1) + "\n")
    return results


def median_and_range(values: list[float], digits: int) -> str:
    """The median, with smallest and largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def report(results: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    speed = {side: [r for r in results if r["side"] == side and r["kind"] == "speed"] for side in SIDES}
    rates = {side: [8 * len(r["step_seconds"]) / sum(r["step_seconds"]) for r in runs] for side, runs in speed.items()}
    ours = statistics.median(rates["ours"])
    lines = ["| side | pairs/s | ours is faster by | net memory, MB | share of the matmul peak | reference pass, s |"]
    lines += ["|---|---|---|---|---|---|"]
    for side in SIDES:
        runs = speed[side]
        layout = "shared" if side in ("ours", "lean") else "packed"
        share = [rate * r["flops_a_pair"][layout] / r["matmul_peak"] for rate, r in zip(rates[side], runs, strict=True)]
        factor = ours / statistics.median(rates[side])
        lines.append(
            f"| {side}: {MEANING[side]} | {median_and_range(rates[side], 2)} | {factor:.2f}x "
            f"| {median_and_range([r['net_mb'] for r in runs], 0)} | {100 * statistics.median(share):.0f} % "
            f"| {statistics.median([r['prepare_seconds'] for r in runs]):.0f} |"
        )
    first = speed["ours"][0]
    packed, shared = first["flops_a_pair"]["packed"], first["flops_a_pair"]["shared"]
    losses = {r["side"]: r["losses"] for r in results if r["kind"] == "losses"}
    apart = max(abs(a - b) / abs(a) for side in SIDES for a, b in zip(losses["ours"], losses[side], strict=True))
    lines += [
        "",
        f"{first['tokens_a_pair']:.0f} tokens a pair. FLOPs of a pair without any padding: {packed / 1e9:.1f} GF "
        f"with the prompt twice, {shared / 1e9:.1f} GF with it once, so sharing it predicts {packed / shared:.2f}x; "
        "the rest is "
        "padding, positions that are not scored, and overhead.",
        "",
        f"On the same eight pairs a step, {len(losses['ours'])} steps, all sides' losses coincide within a relative "
        f"{apart:.0e} (mean-reduced IPO, TRL's form).",
    ]
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Loss curves over one another, and the speeds."""
    figure, (curves, bars) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for width, side in zip((7, 5.5, 4, 2.5, 1), SIDES, strict=True):
        losses = next(r["losses"] for r in results if r["side"] == side and r["kind"] == "losses")
        curves.plot(range(1, len(losses) + 1), losses, linewidth=width, label=side)
    curves.set(xlabel="step", ylabel="loss", title="The same eight pairs: one curve")
    curves.legend(frameon=False)
    rates = [
        [
            8 * len(r["step_seconds"]) / sum(r["step_seconds"])
            for r in results
            if r["side"] == side and r["kind"] == "speed"
        ]
        for side in SIDES
    ]
    bars.barh(SIDES, [statistics.median(each) for each in rates], color="0.75")
    for at, each in enumerate(rates):
        bars.plot(each, [at] * len(each), "k|")
    bars.invert_yaxis()
    bars.set(xlabel="pairs/s", title="Speed, median and every run")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure what is missing and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--trained", default="all", help="all, or the part of the names of the weights that train")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    name = f"engine-{arguments.precision}-{arguments.trained}"
    results = measure(arguments.out / f"{name}.json", arguments.repeats, arguments.precision, arguments.trained)
    plot(results, arguments.out / f"{name}.png")
    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", "trl"))
    text = (
        f"# The engine against TRL: {arguments.precision}, {arguments.trained} weights\n\n"
        f"Made by `benchmarks/engine.py --precision {arguments.precision} --trained {arguments.trained}`: a random "
        f"Llama of 28.3M weights, batches of 8 of {PAIRS} generated pairs, {STEPS - 1} timed steps after "
        f"one to warm up, "
        f"{arguments.repeats} repeats in turns, each a fresh process; medians and ranges. {packages}; "
        f"{platform.machine()}, {os.cpu_count()} cores. Net memory is the peak resident set less imports, weights, "
        "gradients and optimizer. The share of the matmul peak counts what the layout needs without padding or "
        "recomputation.\n\n"
    )
    (arguments.out / f"{name}.md").write_text(f"{text}{report(results)}\n\n![Losses and speeds]({name}.png)\n")


if __name__ == "__main__":
    main()
