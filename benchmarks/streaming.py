"""Memory and start-up time of training on 10,000 and 100,000 short pairs, in a first and a second run.

Whatever grows with the data must be on disk: anonymous resident memory (`RssAnon`) is sampled while a process encodes,
scores the reference and takes three steps with the bundled model of 0.9M weights.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

SIZES = (10_000, 100_000)
STARTED = time.time()


def write_pairs(path: Path, count: int) -> None:
    """Write pairs of random words from the bundled tokenizer: 12 per prompt, 20 per answer."""
    from bfpo.models import MICROWORLD, load_tokenizer

    words = [word[1:] for word in load_tokenizer(MICROWORLD).get_vocab() if word[1:].isalpha()]
    rng = random.Random(0)

    def text(length: int) -> str:
        return " ".join(rng.choices(sorted(words), k=length))

    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            row = {"prompt": text(12), "chosen": text(20), "rejected": text(20)}
            file.write(json.dumps(row | {"chosen_is_safe": True, "rejected_is_safe": rng.random() < 0.5}) + "\n")


class Anonymous(threading.Thread):
    """Largest anonymous resident memory so far, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.largest = 0.0

    def run(self) -> None:
        """Sample it every 20 ms."""
        while True:
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            self.largest = max(self.largest, int(status.split("RssAnon:")[1].split()[0]) / 1024)
            time.sleep(0.02)


def train(pairs: Path, output: Path) -> dict[str, Any]:
    """Take three steps; returns the time from the process's start to the first step, and the memory."""
    memory = Anonymous()
    memory.start()
    from transformers import TrainerCallback

    from bfpo.models import MICROWORLD
    from bfpo.quiet import quiet_libraries
    from bfpo.training.recipe import resolve
    from bfpo.training.run import train as run_training

    class First(TrainerCallback):
        """Records when the first step begins."""

        seconds = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.seconds = self.seconds or time.time() - STARTED

    quiet_libraries()
    recipe = {
        "stage": "preference",
        "model": str(MICROWORLD),
        "data": [{"path": str(pairs)}],
        "output_dir": str(output),
        "max_steps": 3,
    }
    first = First()
    run_training(resolve(recipe, {}, "benchmark"), callbacks=[first])
    return {"seconds_to_first_step": first.seconds, "anonymous_mb": memory.largest}


def run(pairs: Path, output: Path, cache: Path) -> dict[str, Any]:
    """Train in a fresh process."""
    command = [sys.executable, __file__, "--train", str(pairs), str(output)]
    environment = os.environ | {"BFPO_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--train", nargs=2, type=Path, help="train in this process, on this file of pairs into this output folder"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/streaming.md"))
    arguments = parser.parse_args()
    if arguments.train:
        print(json.dumps(train(*arguments.train)))
        return
    found: dict[int, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in SIZES:
            pairs = folder / f"{size}.jsonl"
            write_pairs(pairs, size)
            found[size] = [run(pairs, folder / f"{size}-{at}", folder / f"cache-{size}") for at in (1, 2)]
    text = page(found)
    print(text)
    arguments.out.write_text(text, encoding="utf-8")


def page(found: dict[int, list[dict[str, Any]]]) -> str:
    """The page, from the first and the second run of either size."""
    few, many = SIZES
    largest = {size: max(result["anonymous_mb"] for result in results) for size, results in found.items()}
    starts = {size: [f"{one['seconds_to_first_step']:.1f}" for one in results] for size, results in found.items()}
    rows = [
        f"| {size:,} | {at} | {start} | {result['anonymous_mb']:.0f} |"
        for size, results in found.items()
        for at, start, result in zip(("first", "second"), starts[size], results, strict=True)
    ]
    return "\n".join([
        "# Training on many pairs",
        "",
        "What do ten times as many pairs cost in memory, and in time until the first step?",
        "",
        f"**{many:,} pairs take {largest[many] - largest[few]:.0f} MB more than {few:,}; their first step comes after "
        f"{starts[many][0]} s instead of {starts[few][0]} in a first run, and after {starts[many][1]} s instead of "
        f"{starts[few][1]} in a second.**",
        "",
        "| pairs | run | seconds to the first step | anonymous memory, MB |",
        "|---|---|---|---|",
        *rows,
        "",
        "Short pairs, the bundled model with 0.9M weights. The first run encodes the data and scores the reference; "
        "the second run finds both on disk.",
        "",
        "Made by `make bench-streaming` (six minutes, 2 cores).",
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
