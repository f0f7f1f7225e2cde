"""Signals that end a process: SIGTERM (``kill``, a cluster's scheduler) and SIGINT (Ctrl-C)."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds for cleaning up (closing connections, waiting for threads), after which the process ends all the same.
_CLEANING_UP = 8.0


class Stopped(SystemExit):
    """The process was asked to end, and ends with 128 plus the signal's number: 143 (SIGTERM) or 130 (SIGINT).

    Attributes:
        signal: the signal.
        saved: what was saved because of it, in words; empty if all work is saved as it is done.
    """

    def __init__(self, number: int, saved: str = "") -> None:
        super().__init__(128 + number)
        self.signal, self.saved = signal.Signals(number), saved


class NotedSignals:
    """The first signal that arrived, if any."""

    number: int | None = None


def stop_at_signals() -> None:
    """From now on raise `Stopped` in the main thread as soon as a signal arrives.

    Every file of bfpo is written whole, or grows by whole records, so this is safe at any moment. A signal that the
    process was started to ignore (SIGINT under ``nohup``) stays ignored.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, _ignore)
    end = threading.Timer(_CLEANING_UP, os._exit, (128 + number,))
    end.daemon = True
    end.start()
    raise Stopped(number)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Schedulers send several signals; the process is ending already."""


@contextmanager
def noted_signals() -> Iterator[NotedSignals]:
    """Within the block, only note the first signal, for whoever can stop at a better moment.

    Another SIGTERM changes nothing, because schedulers send several; a second Ctrl-C does what it did before the block.
    Only the main thread can receive signals; in others, nothing is noted.
    """
    noted = NotedSignals()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        if noted.number is None:
            noted.number = number
            if is_main_process():
                # Not by print, in the middle of which the signal may have come.
                os.write(2, f"{signal.Signals(number).name}: stopping after this step\n".encode())
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_main_process() -> bool:
    """Whether this is the first of the processes that a launcher started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def leave(code: int | str | None) -> None:
    """End the process; one of several skips Python's own end, in which gloo now and then aborts."""
    if "RANK" in os.environ and isinstance(code, int):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
