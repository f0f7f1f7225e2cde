"""Our engine against TRL's newest DPOTrainer at the same mathematics: fresh processes, in turns, on this machine.

``engine.py headline`` is float32 with all weights (half an hour), ``engine.py full`` everything (hours). Every
result is kept in a file, so that a benchmark that was broken off goes on; the report is made of what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine_report import OURS, SIDES, write_report
from side import Case
from workload import Workload

HERE = Path(__file__).parent
# Large freed blocks stay with the process on all sides: else one mostly times how they are given back and taken again.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**28),
}
ROWS = (("fp32", "all"), ("bf16", "all"), ("fp32", "down_proj"))
# Prompt and answer tokens, all of one length, so that only the prompt's sharing and positions differ.
LENGTHS = ((64, 192), (128, 128), (256, 64), (512, 64), (1024, 128), (1536, 512))
MODELS = ((192, 6), (384, 10), (768, 12))
# Steps of all pairs of so many answers: their number grows faster than patience.
PAIR_STEPS = {2: 9, 4: 5, 8: 3}
# Short pairs on which all sides' losses must coincide.
SAME = Workload(prompt=24, answer=16, prompts=8)


def headline(repeats: int) -> Iterator[dict[str, Any]]:
    """Float32, all weights: losses once, speeds in turns."""
    for side in SIDES:
        yield {"kind": "losses", "repeat": 0, "case": Case(side, workload=SAME)}
    for repeat in range(repeats):
        for side in SIDES:
            yield {"kind": "speed", "repeat": repeat, "case": Case(side)}


def full(repeats: int) -> Iterator[dict[str, Any]]:
    """Every row of the table with more steps of ours, and the sweeps."""
    for repeat in range(repeats):
        for precision, trained in ROWS:
            for side in SIDES:
                case = Case(side, precision, trained, steps=13 if side in OURS else 7)
                yield {"kind": "speed", "repeat": repeat, "case": case}
    for repeat in range(repeats):
        for answers, steps in PAIR_STEPS.items():
            case = Case("groups", workload=Workload(answers=answers, prompts=16), steps=9, batch=4)
            yield {"kind": "answers", "repeat": repeat, "case": case}
            pairs = answers * (answers - 1) // 2
            pairwise = replace(case, side="ours", steps=steps, batch=4 * pairs)
            yield {"kind": "answers", "repeat": repeat, "case": pairwise}
    for repeat in range(repeats):
        for side in ("ours", "compact"):
            steps = 13 if side == "ours" else 7
            for prompt, answer in LENGTHS:
                workload = Workload(prompt=prompt, answer=answer, spread=0.0, prompts=12)
                case = Case(side, workload=workload, steps=steps, batch=4)
                yield {"kind": "lengths", "repeat": repeat, "case": case}
            for hidden, layers in MODELS:
                workload = Workload(hidden=hidden, layers=layers)
                yield {"kind": "models", "repeat": repeat, "case": Case(side, workload=workload, steps=steps)}


def run(case: Case) -> dict[str, Any]:
    """One fresh process of one side."""
    environment = os.environ | MALLOC | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, str(HERE / "side.py"), json.dumps(asdict(case))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(path: Path, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run what is wanted and not in the file."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    for one in tqdm(wanted, disable=None):
        label = one | {"case": asdict(one["case"])}
        if not any(label.items() <= result.items() for result in results):
            results.append(label | run(one["case"]))
            path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


def main() -> None:
    """Measure what is missing and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["headline", "full", "report"])
    parser.add_argument("--repeats", type=int, help="of every case; by default 3, and 5 of the full benchmark")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--only", help="only cases of this kind, precision, side or part of weights")
    arguments = parser.parse_args()
    wanted: list[dict[str, Any]] = []
    if arguments.what != "report":
        wanted += headline(arguments.repeats or 3)
    if arguments.what == "full":
        wanted += full(arguments.repeats or 5)
    if arguments.only:
        chosen = arguments.only
        wanted = [
            one
            for one in wanted
            if chosen in (one["kind"], one["case"].precision, one["case"].side, one["case"].trained)
        ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_report(measure(arguments.out / "engine.json", wanted), arguments.out)


if __name__ == "__main__":
    main()
