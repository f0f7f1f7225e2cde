"""Work that several processes share: each takes the first run that is neither done nor taken by another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def lock(folder: Path, name: str) -> FileLock:
    """A lock between processes, released at the latest when its process ends."""
    path = folder / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def run_first(
    folder: Path,
    jobs: Iterable[_Job],
    name: Callable[[_Job], str],
    is_done: Callable[[_Job], bool],
    run: Callable[[_Job], _Result],
) -> tuple[_Job, _Result] | None:
    """Run the first job that is neither done nor running in another process; None if there is none."""
    for job in jobs:
        if is_done(job):
            continue
        held = lock(folder, name(job))
        try:
            held.acquire(timeout=0)
        except Timeout:
            continue
        with held:
            # Another process may have finished it in between.
            if not is_done(job):
                return job, run(job)
    return None
