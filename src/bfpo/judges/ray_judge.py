"""Judging on the machines of a Ray cluster (the extra ``ray``): batches go to workers, and verdicts come back in order.

Plain tasks, rather than Ray Data: a batch is a few kilobytes, the order and the cache are kept here, and as much memory
is taken here and in the cluster whatever the set's size.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import astuple, dataclass
from functools import cache
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from bfpo.endpoints import Usage
from bfpo.errors import BfpoError, RunError
from bfpo.judges.registry import load_judge
from bfpo.judges.streaming import BATCH
from bfpo.judges.verdict import Exchange, Judge, Verdict

# How often a batch is tried again whose worker or node died.
_RETRIES = 3
# Batches that are under way for each CPU (or GPU), so that none waits for the next one.
_AHEAD = 2
# Seconds for a cluster to accept a connection; Ray itself would try for minutes.
_PATIENCE = 5.0


@contextmanager
def ray_cluster(address: str = "") -> Iterator[None]:
    """Context with a connection to a Ray cluster.

    Args:
        address: ``HOST:PORT`` of a cluster; by default $RAY_ADDRESS, a cluster that runs on this machine, or else one
            of this machine's CPUs and GPUs for as long as the context.

    Raises:
        BfpoError: if Ray isn't installed.
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
    try:
        ray.init(where or None, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RunError(f"the Ray cluster {where or 'on this machine'} can't be used ({_line(error)})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not (host and port):
        raise BfpoError(f"{address!r} is no address of a Ray cluster: write HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, port), timeout=_PATIENCE).close()
    except OSError as error:
        reason = error.strerror or error
        raise RunError(
            f"the Ray cluster {address} can't be reached ({reason}): start it with 'ray start --head', or name another"
        ) from error


@dataclass(frozen=True)
class RayJudge:
    """A judge that is loaded and asked by the workers of the connected cluster; see `ray_cluster`.

    Its verdicts are those of the judge here. A batch whose worker dies is judged again by another one.

    Attributes:
        spec: specification of the judge, for `load_judge`; every node must have the files that it names.
        judge_itself: the same judge in this process, which is asked nothing.
    """

    spec: str
    judge_itself: Judge

    @classmethod
    def load(cls, spec: str) -> RayJudge:
        """The judge with this specification.

        Raises:
            BfpoError: if there is no such judge.
        """
        return cls(spec, load_judge(spec))

    @property
    def judge_id(self) -> str:
        """Id of the judge."""
        return self.judge_itself.judge_id

    @property
    def template_digest(self) -> str:
        """Digest of its template."""
        return self.judge_itself.template_digest

    @property
    def counts(self) -> Counter[str]:
        """What the workers' judges have counted."""
        return _counts(self.judge_itself)

    @property
    def ahead(self) -> int:
        """Exchanges that the cluster judges at once."""
        return self._slots * BATCH

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict for every exchange, in order."""
        return list(self.stream(exchanges))

    def stream(self, exchanges: Iterable[Exchange]) -> Iterator[Verdict]:
        """The same verdicts one by one, in order, as batches come back.

        Raises:
            BfpoError: if a node has another judge under this name, or none.
            RunError: if a worker's judge gives up, or a batch's workers die again and again.
        """
        import ray
        from ray.exceptions import RayError

        task: Any = ray.remote(_judge).options(max_retries=_RETRIES, num_cpus=1, num_gpus=int(self._needs_gpu))
        rest, waiting = iter(exchanges), deque[Any]()
        try:
            while True:
                while len(waiting) < self._slots and (batch := list(islice(rest, BATCH))):
                    waiting.append(task.remote(self.spec, os.getcwd(), self._identity, batch))
                if not waiting:
                    return
                yield from self._verdicts(ray.get(waiting[0]))
                waiting.popleft()
        except RayError as error:
            raise RunError(
                f"Ray can't judge a batch ({_line(error)}); once the cluster is well, rerun: verdicts so far are kept"
            ) from error
        finally:
            for each in waiting:
                ray.cancel(each)

    def _verdicts(self, judged: _Judged) -> list[Verdict]:
        if judged.error:
            raise (RunError if judged.may_pass else BfpoError)(judged.error)
        inner: Any = _innermost(self.judge_itself)
        if hasattr(inner, "endpoint"):
            inner.endpoint.spent += judged.spent
        self.counts.update(judged.counts)
        return judged.verdicts

    @property
    def _identity(self) -> tuple[str, str]:
        return self.judge_id, self.template_digest

    @property
    def _needs_gpu(self) -> bool:
        import ray

        # A local model; without a GPU of its own, Ray would hide all from it.
        return hasattr(_innermost(self.judge_itself), "model") and ray.cluster_resources().get("GPU", 0) >= 1

    @property
    def _slots(self) -> int:
        import ray

        return _AHEAD * max(1, int(ray.cluster_resources().get("GPU" if self._needs_gpu else "CPU", 1)))


@dataclass(frozen=True)
class _Judged:
    """What a task returns: verdicts with what they cost, or the sentence of an error."""

    verdicts: list[Verdict]
    spent: Usage
    counts: Counter[str]
    error: str = ""
    may_pass: bool = False


def _judge(spec: str, folder: str, identity: tuple[str, str], exchanges: list[Exchange]) -> _Judged:
    """The task: judge a batch in a worker."""
    try:
        judge = _loaded(spec, folder)
        if (judge.judge_id, judge.template_digest) != identity:
            raise BfpoError(f"{spec!r} is another judge there ({judge.judge_id}): give all nodes the same files")
        endpoint, counts = getattr(_innermost(judge), "endpoint", None), _counts(judge)
        before, counted = Usage() if endpoint is None else endpoint.spent, counts.copy()
        verdicts = judge.judge(exchanges)
        after = before if endpoint is None else endpoint.spent
        spent = Usage(*(new - old for new, old in zip(astuple(after), astuple(before), strict=True)))
        return _Judged(verdicts, spent, counts - counted)
    except (BfpoError, RunError) as error:
        told = f"on the node {socket.gethostname()}: {error}"
        return _Judged([], Usage(), Counter(), told, isinstance(error, RunError))


@cache
def _loaded(spec: str, folder: str) -> Judge:
    """The judge, loaded once per worker, with its files relative to the folder where the command runs."""
    try:
        with chdir(folder):
            return load_judge(spec)
    except FileNotFoundError as error:
        raise BfpoError(f"there is no folder {folder}: give all nodes the same files") from error


def _innermost(judge: Any) -> Any:
    while hasattr(judge, "judge_itself"):
        judge = judge.judge_itself
    return judge


def _counts(judge: Judge) -> Counter[str]:
    found: Counter[str] | None = getattr(_innermost(judge), "counts", None)
    return Counter() if found is None else found


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
