"""Memory, time and output of `bfpo label` on 100,000 and 1,000,000 short records: in one process, in parts, and on Ray.

The judge is one that costs next to nothing (`compliance:keywords`), so that what is measured is everything else:
reading, the cache, the calibration, the queue, writing. Anonymous resident memory (`RssAnon`) is sampled from outside.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bfpo.files import write_text

JUDGE = "compliance:keywords"
SIZES = (100_000, 1_000_000)
PARTS, NODES = 4, 2
# Records that people have labeled.
LABELED = 2000
REFUSAL = "I'm sorry, but I can't help with that."


def write_records(path: Path, count: int) -> None:
    """Write short records of random words: a prompt and an answer. A third declines; a tenth of the prompts repeat."""
    rng = random.Random(0)
    words = [f"word{number}" for number in range(2000)]

    def text(length: int) -> str:
        return " ".join(rng.choices(words, k=length))

    with path.open("w", encoding="utf-8") as file:
        for at in range(count):
            prompt = f"{text(5)} {at}" if rng.random() < 0.9 else f"again {at % 1000}"
            declines = rng.random() < 1 / 3
            is_safe = rng.random() < (0.9 if declines else 0.2) if at < LABELED else None
            answer = REFUSAL if declines else text(6)
            row = {"prompt": prompt, "responses": [answer], "helpfulness": None, "is_safe": [is_safe]}
            file.write(json.dumps(row) + "\n")


@dataclass(frozen=True)
class Run:
    """One or several runs of `bfpo label`.

    Attributes:
        seconds: their time together.
        megabytes: largest anonymous memory of any of their processes, workers included.
    """

    seconds: float
    megabytes: float

    def __add__(self, other: Run) -> Run:
        """Both runs, one after the other."""
        return Run(self.seconds + other.seconds, max(self.megabytes, other.megabytes))


def label(records: Path, folder: Path, *options: str) -> Run:
    """Run `bfpo label`, and sample its memory and that of Ray's workers."""
    command = [sys.executable, "-m", "bfpo", "label", str(records), "--judge", JUDGE, *options]
    environment = os.environ | {"BFPO_CACHE": str(folder / "store")}
    began, largest = time.monotonic(), 0.0
    log = folder / "log.txt"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        while process.poll() is None:
            largest = max([largest, *map(anonymous_mb, [process.pid, *workers()])])
            time.sleep(0.1)
    if process.returncode:
        sys.exit(log.read_text(encoding="utf-8")[-2000:])
    return Run(time.monotonic() - began, largest)


def anonymous_mb(pid: int) -> float:
    """Anonymous resident memory of a process in MB; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return int(status.split("RssAnon:")[1].split()[0]) / 1024 if "RssAnon:" in status else 0.0


def workers() -> list[int]:
    """Ids of Ray's workers, which are children of the cluster's processes and so of this one."""
    own = psutil.Process().children(recursive=True)
    return [each.pid for each in own if each.name().startswith("ray::")]


@contextmanager
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of nodes with one CPU each, on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    found = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        for _ in range(NODES - 1):
            found.add_node(**node)
        yield str(found.address)
    finally:
        found.shutdown()


def digest(output: Path) -> str:
    """SHA-256 of the labeled rows and the queue together."""
    found = hashlib.sha256()
    for path in (output, output.with_name(f"{output.stem}.queue.jsonl")):
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def measure(records: Path, folder: Path) -> Iterator[tuple[str, Run, str]]:
    """Each way's name, what it took, and its outputs' digest."""

    def finished(name: str, *options: str) -> tuple[Run, str]:
        output = folder / f"{name}.jsonl"
        run = label(records, folder, "-o", str(output), "--cache", str(folder / f"{name}.sqlite"), *options)
        return run, digest(output)

    yield "one process", *finished("one")
    caches = [folder / f"part-{number}.sqlite" for number in range(1, PARTS + 1)]
    parts = [
        label(records, folder, "--shard", f"{number}/{PARTS}", "--cache", str(cache))
        for number, cache in enumerate(caches, 1)
    ]
    yield f"{PARTS} parts (`--shard`), one after the other", sum(parts, Run(0, 0)), ""
    yield "`--merge` of them", *finished("merged", *(option for cache in caches for option in ("--merge", str(cache))))
    with cluster() as address:
        yield f"`--engine ray`, {NODES} nodes of one CPU", *finished("ray", "--engine", f"ray:{address}")


def report(found: dict[int, list[tuple[str, Run, str]]]) -> str:
    """The page."""
    lines = ["| records | way | seconds | largest process, MB | SHA-256 of rows and queue |", "|---|---|---|---|---|"]
    for size, ways in found.items():
        lines += [
            f"| {size:,} | {name} | {run.seconds:.0f} | {run.megabytes:.0f} | {sha[:16]} |" for name, run, sha in ways
        ]
    same = all(len({sha for _, _, sha in ways if sha}) == 1 for ways in found.values())
    small, large = (max(run.megabytes for _, run, _ in found[size]) for size in (min(found), max(found)))
    each = (large - small) * 2**20 / (max(found) - min(found))
    answer = (
        f"{'Yes' if same else 'No'}: the files are {'' if same else 'not '}the same byte for byte, and {max(found):,} "
        f"records take {large - small:.0f} MB more than {min(found):,} in the largest process, {each:.0f} bytes each."
    )
    return f"""# Labeling in parts and on Ray

Does `bfpo label` write the same files in one process, in {PARTS} parts that are merged, and on a Ray cluster, and
does its memory stay the same for ten times the rows?

**{answer}**

{chr(10).join(lines)}

Records of random words, each a prompt with one answer, {LABELED:,} of them with people's flags, on {os.cpu_count()}
cores. The judge is `{JUDGE}`, which takes microseconds, so the seconds are those of everything else, and say nothing
about a judge that is worth a cluster. The first way also reads and checks the file; the others find that on disk.
Memory is anonymous (`RssAnon`), the largest of `bfpo` and of Ray's workers; Ray's own servers are not counted.

Made by `python benchmarks/sharding.py` (extra `ray`; half an hour, 2 cores); `--sizes 2000 20000` is a quick try.
"""


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs=2, default=SIZES, help="numbers of records")
    parser.add_argument("--out", type=Path, default=Path("docs/results/sharding.md"), help="page to write")
    parser.add_argument("--folder", type=Path, help="folder for the files, of some GB; by default a temporary one")
    arguments = parser.parse_args(given)
    found: dict[int, list[tuple[str, Run, str]]] = {}
    for size in sorted(arguments.sizes):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            records, found[size] = Path(name) / "records.jsonl", []
            write_records(records, size)
            for way in measure(records, Path(name)):
                print(size, *way, flush=True)
                found[size].append(way)
    text = report(found)
    print(text)
    write_text(arguments.out, text)


if __name__ == "__main__":
    main()
