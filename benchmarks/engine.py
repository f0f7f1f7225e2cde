"""Our engine against TRL's DPOTrainer with the same mathematics: fresh processes that take turns on this machine.

``engine.py headline`` runs float32 with all weights (half an hour), ``engine.py full`` everything (hours). Results are
saved in a file, from which an interrupted benchmark resumes and the report is written. ``engine.py real --data FILE``
trains SmolLM2 (from `bfpo model smollm2`) on a file of real pairs (an hour).
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

from engine_report import write_report
from figures import OURS, SIDES
from side import Case
from workload import Workload

HERE = Path(__file__).parent
# On all sides the process keeps large freed blocks; otherwise releasing and reclaiming them would dominate the timing.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**28),
}
ROWS = (("fp32", "all"), ("bf16", "all"), ("fp32", "down_proj"))
# Prompt and answer tokens, all of one length, so that only prompt sharing and scored positions differ.
LENGTHS = ((64, 192), (128, 128), (256, 64), (512, 64), (1024, 128), (1536, 512))
MODELS = ((192, 6), (384, 10), (768, 12))
# Steps to time when K answers are trained as all their pairs, whose number grows fast.
PAIR_STEPS = {2: 9, 4: 5, 8: 3}
# The six timed steps have every pair once.
PAIRS = Workload(batches=6)
# Short pairs on which the losses of all sides must agree.
SAME = Workload(prompt=24, answer=16, prompts=8)


def headline(repeats: int) -> Iterator[dict[str, Any]]:
    """Cases with float32 and all weights: losses once, speeds in turns."""
    for side in SIDES:
        yield {"kind": "losses", "repeat": 0, "case": Case(side, workload=SAME)}
    for repeat in range(repeats):
        for side in SIDES:
            yield {"kind": "speed", "repeat": repeat, "case": Case(side, workload=PAIRS)}


def full(repeats: int) -> Iterator[dict[str, Any]]:
    """Cases of all tables, with more steps for ours, and of the sweeps."""
    for repeat in range(repeats):
        for precision, trained in ROWS:
            for side in SIDES:
                case = Case(side, precision, trained, PAIRS, steps=13 if side in OURS else 7)
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
                workload = replace(PAIRS, hidden=hidden, layers=layers)
                yield {"kind": "models", "repeat": repeat, "case": Case(side, workload=workload, steps=steps)}


def real(repeats: int, folder: str, data: str) -> Iterator[dict[str, Any]]:
    """Cases with SmolLM2 and real pairs, float32, an adapter or all weights."""
    workload = Workload(batches=3, model="smollm2-135m", folder=folder, data=data)
    for repeat in range(repeats):
        for trained in ("lora", "all"):
            for side in ("ours", "roomy", "shipped", "compact"):
                case = Case(side, trained=trained, workload=workload, steps=3 if side == "shipped" else 4)
                yield {"kind": "real", "repeat": repeat, "case": case}


def processes(repeats: int) -> Iterator[dict[str, Any]]:
    """One process with one thread, and two of them that share its steps."""
    for repeat in range(repeats):
        for number in (1, 2):
            case = Case("ours", workload=Workload(prompts=96), batch=16, processes=number)
            yield {"kind": "processes", "repeat": repeat, "case": case}


def run(case: Case) -> dict[str, Any]:
    """Run one side in a fresh process."""
    environment = os.environ | MALLOC | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if case.processes:
        environment["OMP_NUM_THREADS"] = "1"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(case.processes)]
    start = launcher if case.processes > 1 else []
    command = [sys.executable, *start, str(HERE / "side.py"), json.dumps(asdict(case))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(path: Path, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run the wanted cases that have no result in the file; returns all results."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    for one in tqdm(wanted, disable=None):
        label = one | {"case": asdict(one["case"])}
        if not any(label.items() <= result.items() for result in results):
            results.append(label | run(one["case"]))
            path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


def main() -> None:
    """Measure the missing cases and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["headline", "full", "real", "processes", "report"])
    parser.add_argument("--repeats", type=int, help="runs of every case; by default 3, or 5 in the full benchmark")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--model", default="models/smollm2", help="SmolLM2's folder, for 'real'")
    parser.add_argument("--data", help="file of real pairs, for 'real'")
    parser.add_argument("--only", help="run only cases of this kind, precision, side or choice of weights")
    arguments = parser.parse_args()
    wanted: list[dict[str, Any]] = []
    if arguments.what == "real":
        wanted += real(arguments.repeats or 3, arguments.model, arguments.data or parser.error("real needs --data"))
    elif arguments.what == "processes":
        wanted += processes(arguments.repeats or 3)
    elif arguments.what != "report":
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
