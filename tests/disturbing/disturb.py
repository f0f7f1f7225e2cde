"""Disturb every long command at random moments, and compare what it ends with to an undisturbed run.

    python tests/disturbing/disturb.py                          20 of each kind, of every command (make faults)
    python tests/disturbing/disturb.py --times 3 --work label   fewer, of one command
    python tests/disturbing/disturb.py --report FILE            also write the table as Markdown

Kinds: SIGKILL and SIGTERM at a moment drawn from the length of an undisturbed run; a flipped byte or a lost end in one
of the files that a killed run left; and a clock that goes backward. A result that differs without an error is lost; so
is an error that isn't a single sentence, and a command that SIGTERM doesn't end within 10 seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from disturbing.works import WORKS, Work
from support import warm

KINDS = ("SIGKILL", "SIGTERM", "damaged file", "clock goes backward")
SECONDS_TO_END = 10


@dataclass
class Tally:
    """What became of one command's disturbances of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Number of disturbances."""
        return sum(self.outcomes.values())


class Disturbed:
    """One command in a folder of its own, with its undisturbed result to compare with."""

    def __init__(self, work: Work, root: Path, rng: random.Random) -> None:
        self.work, self.root, self.rng = work, root, rng
        self.number = 0
        folder = self._fresh()
        began = time.monotonic()
        done = warm.bfpo(*self.arguments)
        self.seconds = time.monotonic() - began
        assert done.returncode == 0, done.stderr
        self.expected = work.result(folder)
        assert "missing" not in self.expected.values(), self.expected

    def _fresh(self) -> Path:
        self.number += 1
        self.folder = self.root / str(self.number)
        self.folder.mkdir()
        self.arguments = self.work.prepare(self.folder)
        return self.folder

    def start_again(self) -> None:
        """Begin in a new folder."""
        shutil.rmtree(self.folder)
        self._fresh()

    def interrupted(self, earliest: float, sent: signal.Signals) -> warm.Done | None:
        """The end of the command, or of its repetition, at a signal between here and there; None if it was faster.

        Args:
            earliest: share of the run's length before which nothing is sent.
            sent: the signal.
        """
        running = warm.start_bfpo(*self.arguments, *self.work.resume)
        began = time.monotonic()
        running.process.join(self.rng.uniform(earliest, 1) * self.seconds)
        if running.process.exitcode is None:
            os.kill(running.process.pid, sent)
            return running.wait(60)
        # The first run also waited for its imports, or the machine was busy.
        self.seconds = min(self.seconds, time.monotonic() - began)
        done = running.wait()
        assert done.returncode == 0, done.stderr
        return None

    def end(self, tally: Tally, what: str, may_refuse: bool = False) -> None:
        """Run to the end without a disturbance and compare."""
        done = warm.bfpo(*self.arguments, *self.work.resume)
        words = done.stderr.strip().splitlines()[-1:] or [""]
        if done.returncode == 0:
            same = self.work.result(self.folder) == self.expected
            tally.outcomes["the same result" if same else "another result"] += 1
            if not same:
                tally.lost.append(f"{what}: another result")
        elif may_refuse and done.returncode in (1, 2) and "Traceback" not in done.stderr:
            tally.outcomes["refused in one sentence"] += 1
        else:
            tally.outcomes["failed"] += 1
            tally.lost.append(f"{what}: exit code {done.returncode}, {words[0][:300]}")


def killed(one: Disturbed, times: int, tally: Tally, sent: signal.Signals) -> None:
    """Kills one after another in the same folder, until the run is finished, and again in a new one."""
    one.start_again()
    while tally.tried < times:
        began = time.monotonic()
        done = one.interrupted(0, sent)
        if done is None:
            if one.work.result(one.folder) != one.expected:
                tally.lost.append(f"after {sent.name}: another result")
            one.start_again()
            continue
        late = time.monotonic() - began > one.seconds + SECONDS_TO_END
        # 0: it had just finished. -15: nothing had begun that could be saved.
        right = done.returncode in (0, -sent, 143) and not late
        tally.outcomes["ended in time" if right else "ended badly"] += 1
        if not right:
            tally.lost.append(f"{sent.name}: exit code {done.returncode}, {done.stderr.strip()[-300:]}")
    one.end(tally, f"after the last {sent.name}")


def damaged(one: Disturbed, times: int, tally: Tally) -> None:
    """A kill, then a flipped byte or a lost end in one of the files that it left."""
    while tally.tried < times:
        one.start_again()
        done = one.interrupted(0.3, signal.SIGKILL)
        if done is None or done.returncode == 0:
            continue  # finished: nothing reads its files to go on
        files = [file for file in one.work.saved(one.folder) if file.stat().st_size]
        if not files:
            continue
        file = one.rng.choice(files)
        content = bytearray(file.read_bytes())
        place = one.rng.randrange(len(content))
        how = one.rng.choice(("flipped", "cut"))
        if how == "flipped":
            content[place] ^= 1 << one.rng.randrange(8)
        else:
            del content[place:]
        what = f"{file.relative_to(one.folder)} {how} at byte {place:,} of {file.stat().st_size:,}"
        file.write_bytes(content)
        one.end(tally, what, may_refuse=True)


def with_a_backward_clock(*arguments: str) -> None:
    """The command, while every look at the time of day is a second earlier than the last."""
    import itertools

    start = time.time()
    steps = itertools.count()
    time.time = lambda: start - next(steps)
    warm.command(*arguments)


def backward(one: Disturbed, times: int, tally: Tally) -> None:
    """A run killed half-way, whose repetition lives in the past."""
    while tally.tried < times:
        one.start_again()
        one.interrupted(0.2, signal.SIGKILL)
        done = warm.run(with_a_backward_clock, *one.arguments, *one.work.resume)
        same = done.returncode == 0 and one.work.result(one.folder) == one.expected
        tally.outcomes["the same result" if same else "failed"] += 1
        if not same:
            tally.lost.append(f"exit code {done.returncode}, {done.stderr.strip()[-300:]}")


def disturb(work: Work, times: int, kinds: Sequence[str], seed: int) -> dict[str, Tally]:
    """All kinds of disturbance of one command."""
    tallies = {kind: Tally() for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="bfpo-faults-", ignore_cleanup_errors=True) as root:
        os.environ["BFPO_CACHE"] = f"{root}/cache"
        one = Disturbed(work, Path(root), random.Random(f"{seed} {work.name}"))
        for kind, tally in tallies.items():
            if kind.startswith("SIG"):
                killed(one, times, tally, signal.Signals[kind])
            elif kind == "damaged file":
                damaged(one, times, tally)
            else:
                backward(one, max(1, times // 4), tally)
    return tallies


def table(results: dict[str, dict[str, Tally]]) -> str:
    """The table as Markdown: what was tried, its outcome, and what was lost."""
    lines = ["| command | disturbance | tried | outcome | lost |", "|---|---|---|---|---|"]
    for name, tallies in results.items():
        for kind, tally in tallies.items():
            became = ", ".join(f"{count} {what}" for what, count in sorted(tally.outcomes.items()))
            lines.append(f"| {name} | {kind} | {tally.tried} | {became} | {len(tally.lost)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the command line; 1 if anything is lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="disturbances of each kind, for every command")
    parser.add_argument("--work", action="append", choices=[work.name for work in WORKS], help="repeatable")
    parser.add_argument("--kind", action="append", choices=KINDS, help="repeatable; by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="file to write the table to")
    given = parser.parse_args()
    results = {}
    for work in WORKS:
        if given.work and work.name not in given.work:
            continue
        results[work.name] = disturb(work, given.times, given.kind or KINDS, given.seed)
        print(table({work.name: results[work.name]}), flush=True)
        for kind, tally in results[work.name].items():
            for what in tally.lost:
                print(f"LOST ({work.name}, {kind}): {what}", flush=True)
    if given.report:
        given.report.write_text(table(results), encoding="utf-8")
    return any(tally.lost for tallies in results.values() for tally in tallies.values())


if __name__ == "__main__":
    sys.exit(main())
