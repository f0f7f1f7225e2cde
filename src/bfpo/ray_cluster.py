"""Work on the machines of a Ray cluster (the extra ``ray``): tasks go to workers, and their results come back in order.

Plain tasks, rather than Ray Data: batches are planned, ordered and kept here, and as much memory is taken here and in
the cluster whatever the size of the work.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bfpo.errors import BfpoError, RunError, one_line

# How often a task is tried again whose worker or node died.
_RETRIES = 3
# Tasks that are under way for each CPU (or GPU), so that none waits for the next one.
_AHEAD = 2
# Seconds for a cluster to accept a connection; Ray itself would try for minutes.
_PATIENCE = 5.0


@contextmanager
def ray_cluster(address: str = "") -> Iterator[None]:
    """Context with a connection to a Ray cluster; see `connect`."""
    connect(address)
    import ray

    try:
        yield
    finally:
        ray.shutdown()


def connect(address: str = "") -> None:
    """Connect this process to a Ray cluster, until it ends.

    Args:
        address: ``HOST:PORT`` of a cluster; by default $RAY_ADDRESS, a cluster that runs on this machine, or else one
            of this machine's CPUs and GPUs for this process.

    Raises:
        BfpoError: if Ray isn't installed, or the address is none.
        RunError: if the cluster can't be reached.
    """
    # Ray would report what it is used for, and serve a dashboard.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise BfpoError(f"Ray isn't installed ({error}): pip install 'bfpo[ray]'") from error
    where = address or os.environ.get("RAY_ADDRESS", "")
    if where not in ("", "auto", "local"):
        _check_reachable(where)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "ignore_reinit_error": True}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(where or None, include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RunError(f"the Ray cluster {where or 'on this machine'} can't be used ({one_line(error)})") from error
    # Ray's own handler would end the process with another code and no sentence.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)


def _check_reachable(address: str) -> None:
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not (host and port):
        raise BfpoError(f"{address!r} is not the address of a Ray cluster: write HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, port), timeout=_PATIENCE).close()
    except OSError as error:
        reason = error.strerror or error
        raise RunError(
            f"the Ray cluster {address} can't be reached ({reason}): start it with 'ray start --head', or name another"
        ) from error


def has_gpus() -> bool:
    """Whether the connected cluster has GPUs."""
    import ray

    return ray.cluster_resources().get("GPU", 0) >= 1


def slots(on_gpu: bool = False) -> int:
    """Number of tasks that keep the connected cluster busy."""
    import ray

    return _AHEAD * max(1, int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 1)))


class Task:
    """A call of a function in a worker, in a folder with the path of this process's; another worker's if that one dies.

    Args:
        function: a function of a module, which the worker imports.
        arguments: its arguments.
        on_gpu: whether it has a GPU of its own; otherwise Ray hides all from it.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any, on_gpu: bool = False) -> None:
        import ray

        remote: Any = ray.remote(_run).options(max_retries=_RETRIES, num_cpus=1, num_gpus=int(on_gpu))
        self._reference: Any = remote.remote(function, os.getcwd(), arguments)

    def result(self) -> Any:
        """What the function returned.

        Raises:
            BfpoError: if it raised one.
            RunError: if it raised one, or its workers die again and again.
        """
        from ray.exceptions import RayError

        try:
            # ray.get would turn `bfpo.stopping.Stopped`, which a signal raises here, into an exit without a sentence.
            outcome: _Outcome = self._reference.future().result()
        except RayError as error:
            raise RunError(
                f"a task on the Ray cluster failed ({one_line(error)}); once the cluster is healthy, repeat the "
                "command: it continues from here"
            ) from error
        if outcome.error:
            raise (RunError if outcome.may_pass else BfpoError)(outcome.error)
        return outcome.value

    def cancel(self) -> None:
        """Leave the task out, if it has not begun."""
        import ray

        ray.cancel(self._reference)


@dataclass(frozen=True)
class _Outcome:
    """A function's value, or the sentence of its error, which needs no traceback."""

    value: Any
    error: str = ""
    may_pass: bool = False


def _run(function: Callable[..., Any], folder: str, arguments: tuple[Any, ...]) -> _Outcome:
    try:
        if not os.path.isdir(folder):
            raise BfpoError(f"there is no folder {folder}: give all nodes the same files")
        with chdir(folder):
            return _Outcome(function(*arguments))
    except (BfpoError, RunError) as error:
        return _Outcome(None, f"on the node {socket.gethostname()}: {error}", isinstance(error, RunError))
