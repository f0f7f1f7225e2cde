"""Fuzz everything that bfpo reads: damaged files must give the documented errors, quickly and in little memory.

    python tests/fuzzing/fuzz.py                                       100,000 inputs, on all cores (make fuzz)
    python tests/fuzzing/fuzz.py --inputs 2000 --target recipes        fewer, of one kind
    python tests/fuzzing/fuzz.py --target recipes --seed 3 --only 41   one input again, with its traceback and its files

An input is a valid sample with seeded damage, so that target, seed and number reproduce it. An input is a fault if it
raises anything but BfpoError or RunError, takes more than 2 seconds of CPU, or needs more than 1 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["HF_HUB_OFFLINE"] = "1"
SECONDS, WALL_SECONDS, MEMORY = 2, 60, 2**30
# Shown per target; the others are counted.
SHOWN = 20


class TooSlowError(BaseException):
    """Too much time; not an Exception, so that nothing handles it on its way up."""


def _stop(*_: object) -> None:
    raise TooSlowError


def run_target(name: str, seed: int, numbers: range, kept: Path | None = None) -> dict[str, object]:
    """Use inputs of one target; returns counts of outcomes and, of every fault, its number and what was raised."""
    from bfpo.errors import BfpoError, RunError
    from fuzzing.mutation import mutated
    from fuzzing.targets import TARGETS

    target = TARGETS[name]
    samples = target.samples()
    others = [content for sample in samples.values() for content in sample.values()]
    counts: Counter[str] = Counter()
    faults: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="bfpo-fuzz-") as scratch:
        folder = Path(scratch) / "input"
        os.environ["BFPO_CACHE"] = f"{scratch}/cache"
        for sample in samples.values():  # undamaged; also imports everything before memory is limited
            _write(folder, sample)
            with contextlib.suppress(BfpoError, RunError):
                target.use(folder)
        with _limits():
            for number in numbers:
                rng = random.Random(f"{seed} {name} {number}")
                sample = dict(samples[rng.choice(sorted(samples))])
                damaged = rng.choice(sorted(sample))
                sample[damaged] = mutated(rng, damaged, sample[damaged], others)
                _write(folder, sample)
                outcome, raised = _outcome(target.use, folder, (BfpoError, RunError))
                counts[outcome] += 1
                if outcome not in ("read", "refused"):
                    faults.append({"number": number, "what": outcome, "raised": raised})
                if kept:
                    shutil.rmtree(kept, ignore_errors=True)
                    shutil.copytree(folder, kept)
    return {"target": name, "counts": dict(counts), "faults": faults}


def _write(folder: Path, sample: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in sample.items():
        (folder / name).write_bytes(content)


def _outcome(use, folder: Path, documented) -> tuple[str, str]:
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                use(folder)
            return "read", ""
        except documented as error:
            return ("refused", "") if str(error).strip() else ("an error without a message", repr(error))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TooSlowError:
        return "too slow", traceback.format_exc()
    except MemoryError:
        return "too much memory", traceback.format_exc()
    except BaseException:
        return "an undocumented error", traceback.format_exc()


@contextlib.contextmanager
def _limits():
    """At most 1 GB of address space more than now, and alarms that raise."""
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    signal.signal(signal.SIGPROF, _stop)
    signal.signal(signal.SIGALRM, _stop)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def in_a_process(name: str, seed: int, numbers: range) -> dict[str, object]:
    """The same in a process of its own; a process that dies is a fault, too."""
    command = [sys.executable, __file__, "--target", name, "--seed", str(seed)]
    command += ["--worker", str(numbers.start), str(numbers.stop)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    fault = {"number": f"{numbers.start} to {numbers.stop}", "what": f"the process died ({done.returncode})"}
    return {"target": name, "counts": {"died": 1}, "faults": [fault | {"raised": done.stderr[-2000:]}]}


def describe(result: dict, seed: int) -> str:
    """Lines on a target's result, with the commands that reproduce its faults."""
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(result["counts"].items()))
    lines = [f"{result['target']:12} {sum(result['counts'].values()):>8,} inputs: {counts}"]
    seen: set[str] = set()
    for fault in result["faults"]:
        last = fault["raised"].strip().splitlines()[-1:] or [""]
        places = [line.strip() for line in fault["raised"].splitlines() if "/src/bfpo/" in line][-1:]
        if (key := f"{places} {last[0][:40]}") in seen or len(seen) >= SHOWN:
            continue
        seen.add(key)
        again = f"--target {result['target']} --seed {seed} --only {fault['number']}"
        lines.append(f"  {fault['what']}: {last[0][:200]} {' '.join(places)}\n    python tests/fuzzing/fuzz.py {again}")
    return "\n".join(lines)


def main() -> int:
    """Run the command line; 1 if there is a fault."""
    from fuzzing.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="number of inputs, of all targets together")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="repeatable; by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of a single input, whose files are kept in runs/fuzz-input")
    parser.add_argument("--in-process", action="store_true", help="one process for everything")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.target or list(TARGETS)
    if given.worker:
        print(json.dumps(run_target(names[0], given.seed, range(*given.worker))))
        return 0
    if given.only is not None:
        result = run_target(names[0], given.seed, range(given.only, given.only + 1), Path("runs/fuzz-input"))
        print(*(fault["raised"] for fault in result["faults"]), describe(result, given.seed), sep="\n")
        return bool(result["faults"])
    each = -(-given.inputs // len(names))
    if given.in_process:
        return _report((run_target(name, given.seed, range(each)) for name in names), given.seed)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = [pool.submit(in_a_process, name, given.seed, range(each)) for name in names]
        return _report((one.result() for one in as_completed(running)), given.seed)


def _report(results, seed: int) -> int:
    total, faults = 0, 0
    for result in results:
        print(describe(result, seed), flush=True)
        total += sum(result["counts"].values())
        faults += len(result["faults"])
    print(f"{total:,} inputs with seed {seed}, {faults:,} faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
