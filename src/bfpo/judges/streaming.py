"""Verdicts on any number of answers: in order, in bounded memory, and into a cache as they come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol, runtime_checkable

from bfpo.judges.cache import VerdictCache, verdict_key
from bfpo.judges.unjudged import NO_REPLY
from bfpo.judges.verdict import Exchange, Judge, Verdict

# Held at once. Long enough for the end of a chunk, where a server runs empty, not to matter: with 64 requests in
# flight it costs one reply's time in 64.
CHUNK = 4096
# A judge that isn't streaming is asked this much at once, so that a kill loses no more.
BATCH = 256
# Seconds of a stream's verdicts that go into the cache at once: what a kill may lose, beside what was under way.
KEEP_EVERY = 0.05


@runtime_checkable
class StreamingJudge(Protocol):
    """A judge that gives its verdicts one by one, as a server's replies come."""

    def stream(self, exchanges: Iterable[Exchange]) -> Iterator[Verdict]:
        """A verdict for every exchange, in the order given."""
        ...


def verdicts(judge: Judge, exchanges: Iterable[Exchange], cache: VerdictCache | None = None) -> Iterator[Verdict]:
    """A verdict for every exchange, in the order given; what is the same is asked once in a chunk.

    Args:
        judge: who judges.
        exchanges: read as they are needed.
        cache: what was judged before; new verdicts go there at once. A reply that never came doesn't, so that the
            next run asks again.
    """
    rest = iter(exchanges)
    while chunk := list(islice(rest, CHUNK)):
        keys = [verdict_key(judge, exchange) for exchange in chunk]
        distinct = dict(zip(keys, chunk, strict=True))
        known = {key: None if cache is None else cache.get(judge, exchange) for key, exchange in distinct.items()}
        missing = {key: exchange for key, exchange in distinct.items() if known[key] is None}
        asked = iter(missing.items())
        for given in _ask(judge, list(missing.values())):
            judged = [(next(asked), verdict) for verdict in given]
            known |= {key: verdict for (key, _), verdict in judged}
            if cache is not None:
                cache.add(judge, [(exchange, v) for (_, exchange), v in judged if NO_REPLY not in v.categories])
        for key in keys:
            verdict = known[key]
            assert verdict is not None, "a judge left an exchange out"
            yield verdict


def _ask(judge: Judge, exchanges: list[Exchange]) -> Iterator[list[Verdict]]:
    if isinstance(judge, StreamingJudge):
        held: list[Verdict] = []
        kept_at = time.monotonic()
        for verdict in judge.stream(exchanges):
            held.append(verdict)
            if time.monotonic() - kept_at >= KEEP_EVERY:
                yield held
                held, kept_at = [], time.monotonic()
        if held:
            yield held
        return
    for start in range(0, len(exchanges), BATCH):
        yield judge.judge(exchanges[start : start + BATCH])
