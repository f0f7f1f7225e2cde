"""Processes of their own that start at once: forks of a server that has imported bfpo and has run nothing.

Importing torch and transformers takes most of the time of a short run. The processes share nothing but these imports:
each has its own environment, random state and output, and may be killed.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["bfpo.cli.main", "bfpo.training.run", "bfpo.safehelp.evaluate", "bfpo.judges.fitted"])


@dataclass(frozen=True)
class Done:
    """How a process ended, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Running:
    """A process and the folder that its output goes to."""

    process: ForkServerProcess
    output: Path

    def wait(self, timeout: float = 300) -> Done:
        """The end of the process; one that takes longer is killed."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        assert self.process.exitcode is not None
        done = Done(self.process.exitcode, *((self.output / name).read_text() for name in ("stdout", "stderr")))
        shutil.rmtree(self.output)
        return done

    def kill_when(self, happened: Callable[[], object], timeout: float = 300) -> Done:
        """The end of the process, which is killed (SIGKILL) once something has happened."""
        until = time.monotonic() + timeout
        while self.process.is_alive() and not happened() and time.monotonic() < until:
            time.sleep(0.002)
        self.process.kill()
        return self.wait()


def start(function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None) -> Running:
    """Call a function of a module in a process of its own; it sees the variables of this one, changed as given."""
    output = Path(tempfile.mkdtemp(prefix="bfpo-warm-"))
    for name in ("stdout", "stderr"):  # a process that is killed at once has written none
        (output / name).touch()
    values = os.environ | (environment or {})
    process = _server.Process(target=_call, args=(output, dict(values), os.getcwd(), function, arguments))
    process.start()
    return Running(process, output)


def run(function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None) -> Done:
    """Call a function in a process of its own and wait for its end."""
    return start(function, *arguments, environment=environment).wait()


def start_bfpo(*arguments: object) -> Running:
    """Start the ``bfpo`` command."""
    return start(command, *map(str, arguments))


def bfpo(*arguments: object) -> Done:
    """Run the ``bfpo`` command to its end."""
    return start_bfpo(*arguments).wait()


def command(*arguments: str) -> None:
    """The ``bfpo`` command in this process, which it ends."""
    from bfpo.cli.main import main

    sys.argv = ["bfpo", *arguments]
    main()


def _call(
    output: Path, environment: dict[str, str], folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    import torch

    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8", line_buffering=True)
    # As in a terminal, whoever runs the tests: shells start what goes on in the background without SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    torch.set_num_threads(1)
    try:
        function(*arguments)
    finally:
        sys.stdout.flush()
