"""Judging on a Ray cluster: batches go to its workers, and verdicts come back in order."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from itertools import islice
from typing import Any

from bfpo.endpoints import Usage
from bfpo.errors import BfpoError
from bfpo.judges.registry import load_judge
from bfpo.judges.streaming import BATCH
from bfpo.judges.verdict import Exchange, Judge, Verdict, innermost
from bfpo.ray_cluster import Task, has_gpus, slots


@dataclass(frozen=True)
class RayJudge:
    """A judge that is loaded and asked by the workers of the connected cluster (`bfpo.ray_cluster`).

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
        return slots(self._on_gpu) * BATCH

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict for every exchange, in order."""
        return list(self.stream(exchanges))

    def stream(self, exchanges: Iterable[Exchange]) -> Iterator[Verdict]:
        """The same verdicts one by one, in order, as batches come back.

        Raises:
            BfpoError: if a node has another judge under this name, or none.
            RunError: if a worker's judge gives up, or a batch's workers die again and again.
        """
        rest, waiting, on_gpu = iter(exchanges), deque[Task](), self._on_gpu
        identity, most = (self.judge_id, self.template_digest), slots(self._on_gpu)
        try:
            while True:
                while len(waiting) < most and (batch := list(islice(rest, BATCH))):
                    waiting.append(Task(_judge, self.spec, identity, batch, on_gpu=on_gpu))
                if not waiting:
                    return
                yield from self._verdicts(*waiting[0].result())
                waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()

    def _verdicts(self, verdicts: list[Verdict], spent: Usage, counts: Counter[str]) -> list[Verdict]:
        inner: Any = innermost(self.judge_itself)
        if hasattr(inner, "endpoint"):
            inner.endpoint.spent += spent
        self.counts.update(counts)
        return verdicts

    @property
    def _on_gpu(self) -> bool:
        return hasattr(innermost(self.judge_itself), "model") and has_gpus()


def _judge(
    spec: str, identity: tuple[str, str], exchanges: list[Exchange]
) -> tuple[list[Verdict], Usage, Counter[str]]:
    """In a worker: verdicts on a batch, the tokens that they took, and what the judge counted."""
    judge = _loaded(spec, os.getcwd())
    if (judge.judge_id, judge.template_digest) != identity:
        raise BfpoError(f"{spec!r} is another judge there ({judge.judge_id}): give all nodes the same files")
    endpoint, counts = getattr(innermost(judge), "endpoint", None), _counts(judge)
    before, counted = Usage() if endpoint is None else endpoint.spent, counts.copy()
    verdicts = judge.judge(exchanges)
    after = before if endpoint is None else endpoint.spent
    spent = Usage(*(new - old for new, old in zip(astuple(after), astuple(before), strict=True)))
    return verdicts, spent, counts - counted


@cache
def _loaded(spec: str, folder: str) -> Judge:
    """The judge, loaded once per worker and folder, to which its files may be relative."""
    return load_judge(spec)


def _counts(judge: Judge) -> Counter[str]:
    found: Counter[str] | None = getattr(innermost(judge), "counts", None)
    return Counter() if found is None else found
