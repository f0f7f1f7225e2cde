"""Judging on a Ray cluster: batches go to its workers, and verdicts come back in order."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from bfpo.endpoints import Usage
from bfpo.errors import BfpoError
from bfpo.judges.registry import load_judge
from bfpo.judges.streaming import BATCH
from bfpo.judges.verdict import Exchange, Judge, Verdict, WrappedJudge, counts_of, endpoint_of, innermost
from bfpo.ray_cluster import Task, has_gpus, slots

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@runtime_checkable
class RunsModel(Protocol):
    """A judge that runs a model in its own process, on the GPU if there is one."""

    @property
    def model(self) -> PreTrainedModel:
        """The model."""
        ...


@dataclass(frozen=True)
class RayJudge(WrappedJudge):
    """A judge that is loaded and asked by the workers of the connected cluster (`bfpo.ray_cluster`).

    Its verdicts are those of the judge here. A batch whose worker dies is judged again by another one.

    Attributes:
        judge_itself: the same judge in this process, which is asked nothing.
        spec: specification of the judge, for `load_judge`; every node must have the files that it names.
    """

    spec: str

    @classmethod
    def load(cls, spec: str) -> RayJudge:
        """The judge with this specification.

        Raises:
            BfpoError: if there is no such judge.
        """
        return cls(load_judge(spec), spec)

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
        if endpoint := endpoint_of(self):
            endpoint.spent += spent
        counts_of(self).update(counts)
        return verdicts

    @property
    def _on_gpu(self) -> bool:
        return isinstance(innermost(self), RunsModel) and has_gpus()


def _judge(
    spec: str, identity: tuple[str, str], exchanges: list[Exchange]
) -> tuple[list[Verdict], Usage, Counter[str]]:
    """In a worker: verdicts on a batch, the tokens that they took, and what the judge counted."""
    judge = _loaded(spec, os.getcwd())
    if (judge.judge_id, judge.template_digest) != identity:
        raise BfpoError(f"{spec!r} is another judge there ({judge.judge_id}): give all nodes the same files")
    endpoint, counts = endpoint_of(judge), counts_of(judge)
    before, counted = Usage() if endpoint is None else endpoint.spent, counts.copy()
    verdicts = judge.judge(exchanges)
    after = before if endpoint is None else endpoint.spent
    spent = Usage(*(new - old for new, old in zip(astuple(after), astuple(before), strict=True)))
    return verdicts, spent, counts - counted


@cache
def _loaded(spec: str, folder: str) -> Judge:
    """The judge, loaded once per worker and folder, to which its files may be relative."""
    return load_judge(spec)
