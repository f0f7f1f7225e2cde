"""What each method costs on the microworld: processor time, tokens, memory and labels, beside a Lagrangian RL baseline.

All start from one SFT model and learn from the same labels. Every run is a fresh process with one thread; only its
training is counted, not the common start or the evaluation. ``python benchmarks/cost.py`` (40 minutes of one core,
resumable) writes docs/results/cost.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bfpo.files import write_text
from bfpo.models import MICROWORLD
from bfpo.quickstart import METHODS, Method, Scale, method_recipe, sft_recipe, write_data, write_recipe
from bfpo.quiet import quiet_libraries
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.suites import load_suite
from bfpo.statistics.intervals import mean_interval
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train

HERE = Path(__file__).parent
RL = "Lagrangian RL"
SIDES: Mapping[str, Method | None] = {"BFPO": METHODS["BFPO"], "DPO": METHODS["DPO"], RL: None}
FIGURES = ("helpful", "harmless", "over_refusal", "incoherent")
Result = dict[str, Any]


def prepare(folder: Path, seed: int) -> None:
    """Data and the common start of a seed."""
    if not (folder / "SFT" / "run.json").exists():
        write_data(folder / "data", Scale(), seed)
        recipe = sft_recipe(folder / "data", MICROWORLD, folder / "SFT", Scale(), seed)
        train(load_recipe(write_recipe(folder / "SFT.yaml", recipe)))


def command(name: str, folder: Path, seed: int) -> list[str]:
    """The command that trains one side."""
    output = folder / name.replace(" ", "-")
    method = SIDES[name]
    if method is None:
        script, seeded = str(HERE / "lagrangian_rl.py"), ["--seed", str(seed)]
        return [sys.executable, script, str(folder / "SFT"), str(folder / "data"), str(output), *seeded]
    recipe = method_recipe(method, method.beta, folder / "data", folder / "SFT", output, Scale(), seed)
    # Each side pays for its own reference pass.
    path = write_recipe(folder / f"{name}.yaml", recipe | {"reference_cache": None})
    return [sys.executable, "-m", "bfpo", "train", str(path)]


def measure(name: str, folder: Path, seed: int) -> Result:
    """Train one side in a process of its own, and evaluate it."""
    prepare(folder, seed)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    # The memory of the largest child so far would hide a smaller one's, so each is asked by a process of its own.
    asked = [sys.executable, "-c", _WATCHED, *command(name, folder, seed)]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}, seed {seed}, failed:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = folder / name.replace(" ", "-")
    return {
        "side": name,
        "seed": seed,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mb": int(done.stdout.splitlines()[-1]) / 1024,
        "tokens": _tokens(output),
        "figures": _figures(output, seed),
    }


_WATCHED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def _tokens(output: Path) -> float:
    """Tokens of prompts and answers that the trained models saw in training, each time that they saw them."""
    record = output / "lagrangian.json"
    if record.exists():
        return json.loads(record.read_text(encoding="utf-8"))["tokens"]
    return json.loads((output / "run.json").read_text(encoding="utf-8"))["usage"]["tokens"]


def _figures(model: Path, seed: int) -> dict[str, float]:
    suite = replace(load_suite("microworld", per_kind=400), choices=[])
    found = evaluate(model, suite, name=model.name, decoding=replace(suite.decoding, seed=seed))
    figures = {name: found.scores[name].value for name in FIGURES}
    return figures | {"U": (figures["helpful"] + figures["harmless"]) / 2}


def report(results: Sequence[Result]) -> Iterator[str]:
    """The page."""
    seeds = sorted({one["seed"] for one in results})
    by_side = {name: [one for one in results if one["side"] == name] for name in SIDES}
    ours, theirs = by_side["BFPO"], by_side[RL]
    share = mean(ours, "cpu_seconds") / mean(theirs, "cpu_seconds")
    scale = Scale()
    orders, flags, scores = scale.safety, 2 * scale.safety, scale.helpful * scale.answers
    yield "# What safety costs: BFPO beside Lagrangian RL"
    yield ""
    yield "How much compute does BFPO need beside reinforcement learning with a reward and a cost model?"
    yield ""
    utility = [sum(one["figures"]["U"] for one in own) / len(own) for own in (ours, theirs)]
    yield (
        f"**{share:.0%} of its processor time, with the same labels, for a U of {utility[0]:.3f} against "
        f"{utility[1]:.3f}.**"
    )
    yield ""
    yield from _table(by_side)
    yield ""
    yield (
        f"Every side starts from the same SFT model and reads the same labels: {orders:,} orders by helpfulness, "
        f"{flags:,} safety flags and {scores:,} scores. RL is Safe RLHF's way with TRL "
        "(`benchmarks/lagrangian_rl.py`): a reward model, a cost model, then GRPO on reward - lambda * cost, where "
        "lambda is adapted until the mean cost is at most .02. Its settings were chosen in three whole tries on seed "
        "0's data, by answers to validation prompts: with lambda from 1 and KL weight .02 the policy never declined "
        "(harmless .00), with learning rate 5e-4 all answers were incoherent, and the third is the one in the table. "
        "BFPO's and DPO's beta are those of [the quickstart's study](study-quick.md). Means over seeds with 95 % t "
        "intervals."
    )
    yield ""
    yield (
        "The labels are equal here by construction. How few of them must come from people is "
        "[another study's question](label-efficiency.md). Imports of torch and transformers "
        "are in every row."
    )
    yield ""
    yield (
        f"Made by `python benchmarks/cost.py` (40 minutes, 1 core); {len(seeds)} seeds, one thread, the quickstart's "
        "data."
    )


def mean(own: Sequence[Result], name: str) -> float:
    """Mean over a side's runs."""
    return sum(one[name] for one in own) / len(own)


def _table(by_side: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    columns = ("U", *FIGURES)
    yield f"| method | processor seconds | tokens in training | peak memory, MB | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 4) + "|"
    for name, own in by_side.items():
        cells = [f"{mean(own, 'cpu_seconds'):,.0f}", f"{mean(own, 'tokens'):,.0f}", f"{mean(own, 'peak_mb'):,.0f}"]
        for column in columns:
            found = mean_interval([one["figures"][column] for one in own])
            cells.append(f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]")
        yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Run what has no result, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/cost"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    given = parser.parse_args()
    quiet_libraries()
    path = given.out / "cost.json"
    results: list[Result] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    done = {(one["side"], one["seed"]) for one in results}
    for seed in given.seeds:
        for name in SIDES:
            if (name, seed) not in done:
                results.append(measure(name, given.folder / f"seed{seed}", seed))
                write_text(path, json.dumps(results, indent=1) + "\n")
                print(results[-1])
    write_text(given.out / "cost.md", "\n".join(report(results)) + "\n")


if __name__ == "__main__":
    main()
