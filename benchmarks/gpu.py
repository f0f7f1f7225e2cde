"""Everything that needs a GPU: its tests, then measurements of the engine and of training against TRL's.

``gpu.py`` runs what has no result yet, each part in a process of its own, and writes results as they come; a part that
fails leaves its error. ``--only`` and ``--skip`` choose parts by words of their names, as ``--list`` shows them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from gpu_report import write_report
from side import Case
from workload import Workload

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# Seconds after which a part has failed.
LONGEST = 170
# Tests by name: their file and what pytest chooses from it.
TESTS = {
    "float32": {"file": "test_gpu_attention.py", "chosen": "float32_equals"},
    "bfloat16": {"file": "test_gpu_attention.py", "chosen": "bfloat16_is"},
    "streams": {"file": "test_gpu_attention.py", "chosen": "not float32_equals and not bfloat16_is"},
    "head": {"file": "test_gpu_head.py", "chosen": ""},
    "generation": {"file": "test_gpu_generation.py", "chosen": ""},
    "training": {"file": "test_gpu_training.py", "chosen": ""},
}
SIDES = ("ours", "compact", "shipped")
# Eight short pairs, which every step of every side has, so that losses can be compared.
SAME = Workload(prompt=24, answer=16, prompts=8)
# Attempts with half the tokens in memory, if there is too little memory.
ATTEMPTS = 3


@dataclass(frozen=True)
class Part:
    """What runs in one process.

    Attributes:
        name: unique name.
        kind: "tests", "speed", "losses" or the name of a function of ``gpu_parts.py``.
        case: the training run, if it is one.
        options: the function's other arguments, or the file of tests.
    """

    name: str
    kind: str
    case: Case | None = None
    options: dict[str, Any] = field(default_factory=dict)


def speed(model: str, trained: str, side: str, **options: Any) -> Part:
    """A training run of one side in bf16."""
    settings: dict[str, Any] = {"tokens": 16_384} | options
    case = Case(side, "bf16", trained, Workload(model=model, batches=6), **settings)
    return Part(f"{model or 'llama-28m'} {trained} {side}", "speed", case)


def parts() -> list[Part]:
    """All parts, the most telling first."""
    qwen, llama = "qwen2.5-1.5b", "llama-2-7b"
    found = [Part(f"tests {name}", "tests", options=options) for name, options in TESTS.items()]
    found.append(Part("card", "card"))
    for trained in ("lora", "all"):
        found.append(speed(qwen, trained, "ours", batch=32, tokens=8192))
        found.append(speed(qwen, trained, "compact", batch=32, parts=4))
        found.append(speed(qwen, trained, "shipped", batch=32))
    measured = found[-3].case
    for side in SIDES:
        found.append(Part(f"agreement {side}", "losses", Case(side, workload=SAME)))
    assert measured is not None
    found.append(Part("profile", "profiled", measured))
    found += [Part(f"lengths {model}", "lengths", options={"model": model}) for model in (qwen, llama)]
    found.append(Part("heads", "heads", options={"model": qwen}))
    found.append(speed(llama, "lora", "ours", batch=16, tokens=4096))
    found.append(speed(llama, "qlora", "ours", batch=16, tokens=4096))
    found.append(Part("profile qlora", "profiled", found[-1].case))
    found.append(speed(llama, "lora", "compact", batch=16, parts=4))
    for model, rows in (("smollm2-135m", 2), ("", 1)):
        found.append(speed(model, "all", "ours", batch=64))
        found.append(speed(model, "all", "compact", batch=64, parts=rows))
        found.append(speed(model, "all", "shipped", batch=64))
    return found


def environment() -> dict[str, str]:
    """The environment of a part: this checkout first on Python's path, nothing from the Hub, nothing cached."""
    folders = [ROOT / "src", ROOT, ROOT / "tests", os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(str(folder) for folder in folders if str(folder)),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "BFPO_CACHE": tempfile.mkdtemp(prefix="bfpo-bench-"),
        # On all sides: memory that is free in pieces then counts as free.
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }


def executed(command: Sequence[str], limit: float) -> tuple[int | None, str, str]:
    """Exit status (None if it took too long), output and errors of a process, which is ended with its children."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        # Files and not pipes: compilers that outlive the process would keep a pipe open.
        with output.open("w", encoding="utf-8") as out, errors.open("w", encoding="utf-8") as err:
            process = subprocess.Popen(
                command, env=environment(), stdout=out, stderr=err, cwd=ROOT, start_new_session=True
            )
            try:
                status: int | None = process.wait(limit)
            except subprocess.TimeoutExpired:
                status = None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        printed, told = (path.read_text(encoding="utf-8", errors="replace") for path in (output, errors))
        return status, printed, told


def failure(status: int | None, output: str, errors: str, limit: float) -> str:
    """Why a process has no result."""
    if status is None:
        return f"took longer than {limit:.0f} s"
    return (errors.strip() or output.strip())[-2500:] or f"ended with status {status}"


def run_tests(file: str, chosen: str, limit: float) -> dict[str, Any]:
    """Outcome, time and recorded figures of the chosen tests in a file."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", f"tests/gpu/{file}", "-m", "gpu", "--noconftest", "--tb=short"]
        command += ["-p", "no:cacheprovider", "-k", chosen, f"--junitxml={report}"]
        status, output, errors = executed(command, limit)
        if not report.exists():
            return {"error": failure(status, output, errors, limit)}
        return {"tests": [_outcome(case) for case in ElementTree.parse(report).iter("testcase")]}


def _outcome(case: Any) -> dict[str, Any]:
    failed = [one for one in case if one.tag in ("failure", "error")]
    skipped = [one.get("message") for one in case if one.tag == "skipped"]
    return {
        "name": case.get("name"),
        "seconds": float(case.get("time")),
        "outcome": "failed" if failed else "skipped" if skipped else "passed",
        "message": "\n".join(filter(None, [*((one.text or "")[-1200:] for one in failed), *skipped])),
        "figures": {one.get("name"): one.get("value") for one in case.iter("property")},
    }


def run(part: Part, limit: float) -> dict[str, Any]:
    """A part's result or error; a training run that finds too little memory is tried again with less in it."""
    if part.kind == "tests":
        return run_tests(part.options["file"], part.options["chosen"], limit)
    case, tried = part.case, []
    started = time.monotonic()
    while True:
        if part.kind in ("speed", "losses"):
            assert case is not None
            command = [sys.executable, str(HERE / "side.py"), json.dumps(asdict(case))]
        else:
            given = {"part": part.kind} | part.options | ({"case": asdict(case)} if case else {})
            command = [sys.executable, str(HERE / "gpu_parts.py"), json.dumps(given)]
        left = limit - (time.monotonic() - started)
        status, output, errors = executed(command, left)
        if status == 0:
            return {"case": asdict(case) if case else None, "tried": tried, **json.loads(output.splitlines()[-1])}
        why = failure(status, output, errors, left)
        smaller = less_memory(case) if case and "out of memory" in why.lower() else None
        if smaller is None or len(tried) + 1 == ATTEMPTS or limit - (time.monotonic() - started) < 20:
            return {"case": asdict(case) if case else None, "tried": tried, "error": why}
        tried.append({"tokens": case.tokens, "parts": case.parts} if case else {})
        case = smaller


def less_memory(case: Case) -> Case | None:
    """The same steps with half as many tokens in memory at once; None if that isn't possible."""
    if case.is_ours:
        return replace(case, tokens=case.tokens // 2) if case.tokens > 1024 else None
    return replace(case, parts=2 * case.parts) if case.batch % (2 * case.parts) == 0 else None


def chosen(found: Sequence[Part], only: Sequence[str], skip: Sequence[str]) -> list[Part]:
    """Parts whose name has all words of one of ``only``, if given, and of none of ``skip``."""

    def fits(part: Part, wanted: Sequence[str]) -> bool:
        return any(set(words.split()) <= set(part.name.split()) for words in wanted)

    return [part for part in found if (not only or fits(part, only)) and not fits(part, skip)]


def is_done(part: Part, found: dict[str, Any]) -> bool:
    """Whether a result is there, of this very part: tests that failed and a changed training run are run again."""
    if "error" in found or any(test["outcome"] == "failed" for test in found.get("tests", [])):
        return False
    if part.case is None:
        return True
    # A run that found too little memory was repeated with less of it.
    wanted, ran = (case | {"tokens": 0, "parts": 0} for case in (asdict(part.case), found["case"]))
    return wanted == ran


def check_card(results: dict[str, Any], path: Path) -> None:
    """Refuse to mix the results of two cards."""
    before, now = results.get("card", {}).get("device"), torch.cuda.get_device_name()
    if before not in (None, now):
        sys.exit(f"{path} has results of {before}, and this is {now}: name another folder with --out.")


def main() -> None:
    """Run the parts without a result, until the time is up, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results", help="folder of gpu.json and gpu.md")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="WORDS", help='such as tests, "qwen2.5-1.5b lora", card'
    )
    parser.add_argument("--skip", nargs="*", default=[], metavar="WORDS", help="the same, of what is left out")
    parser.add_argument("--minutes", type=float, default=9.0, help="time after which nothing more is started")
    parser.add_argument("--longest", type=float, default=LONGEST, help="seconds after which a part has failed")
    parser.add_argument("--list", action="store_true", help="print the names of the parts")
    parser.add_argument("--report", action="store_true", help="only write the report of the results there are")
    arguments = parser.parse_args()
    wanted = chosen(parts(), arguments.only, arguments.skip)
    if arguments.list:
        print("\n".join(part.name for part in wanted))
        return
    if not (arguments.report or torch.cuda.is_available()):
        sys.exit("bench-gpu measures on a CUDA device, and torch finds none here.")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path, end = arguments.out / "gpu.json", time.monotonic() + 60 * arguments.minutes
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if not arguments.report:
        check_card(results, path)
    for part in [] if arguments.report else wanted:
        if is_done(part, results.get(part.name, {"error": "no result yet"})):
            continue
        started = time.monotonic()
        if end - started < 20:
            results.setdefault(part.name, {"kind": part.kind, "error": "not run: the time was up"})
        else:
            try:
                found = run(part, min(arguments.longest, end - started))
            except Exception as error:  # whatever it is, the others are still worth running
                found = {"error": f"{type(error).__name__}: {error}"}
            results[part.name] = {"kind": part.kind, "wall_seconds": time.monotonic() - started, **found}
        print(f"{part.name}: {_line(results[part.name])}", flush=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for part in parts():
        results.setdefault(part.name, {"kind": part.kind, "error": "not run yet"})
    write_report(results, arguments.out)


def _line(result: dict[str, Any]) -> str:
    """A result in one line, for the terminal."""
    if "error" in result:
        return result["error"].strip().splitlines()[-1][:300]
    if "tests" in result:
        count = [sum(test["outcome"] == name for test in result["tests"]) for name in ("passed", "failed", "skipped")]
        return f"{count[0]} passed, {count[1]} failed, {count[2]} skipped in {result['wall_seconds']:.0f} s"
    return f"{result['wall_seconds']:.0f} s"


if __name__ == "__main__":
    main()
