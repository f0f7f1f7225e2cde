"""`verdicts`: verdicts on any number of answers, in order, in bounded memory, cached as they arrive."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol, runtime_checkable

from bfpo.errors import RunError
from bfpo.judges.cache import VerdictCache, verdict_key
from bfpo.judges.unjudged import ONLY_THINKING, is_empty, is_unanswered, says_nothing
from bfpo.judges.verdict import Exchange, Judge, Verdict

# Exchanges in memory at once. A server idles at the end of a chunk; with 64 requests in flight that costs one reply's
# time in 64.
CHUNK = 4096
# Exchanges per call of a judge that doesn't stream; a kill loses no more than one call's verdicts.
BATCH = 256
# Seconds between two writes of a stream's verdicts to the cache; a kill loses no more than that and replies in flight.
KEEP_EVERY = 0.05


@runtime_checkable
class StreamingJudge(Protocol):
    """A judge that yields its verdicts one by one, as a server's replies arrive.

    An attribute ``ahead`` is the number of exchanges that it needs at once to be busy, if they are more than a chunk.
    """

    def stream(self, exchanges: Iterable[Exchange]) -> Iterator[Verdict]:
        """One verdict for every exchange, in order."""
        ...


def verdicts(judge: Judge, exchanges: Iterable[Exchange], cache: VerdictCache | None = None) -> Iterator[Verdict]:
    """One verdict for every exchange, in order; equal exchanges in a chunk are judged once.

    Args:
        judge: the judge.
        exchanges: the exchanges, read as needed.
        cache: earlier verdicts, to which new ones are added at once; a missing or unusable reply is not cached, so that
            the next run asks again.

    Raises:
        RunError: at the end, if not a single verdict could be read.
    """
    rest = iter(exchanges)
    silent: Verdict | None = None
    speaks = False
    size = max(CHUNK, getattr(judge, "ahead", 0))
    while chunk := list(islice(rest, size)):
        keys = [verdict_key(judge, exchange) for exchange in chunk]
        distinct = dict(zip(keys, chunk, strict=True))
        known = {key: None if cache is None else cache.get(judge, exchange) for key, exchange in distinct.items()}
        missing = {key: exchange for key, exchange in distinct.items() if known[key] is None}
        waiting = iter(missing.items())
        for batch in _ask(judge, list(missing.values())):
            judged = [(next(waiting), verdict) for verdict in batch]
            known |= {key: verdict for (key, _), verdict in judged}
            if cache is not None:
                cache.add(judge, [(exchange, v) for (_, exchange), v in judged if not is_unanswered(v)])
        for key, exchange in zip(keys, chunk, strict=True):
            verdict = known[key]
            assert verdict is not None, "a judge left an exchange out"
            if not is_empty(exchange):
                speaks = speaks or not says_nothing(verdict)
                silent = silent or verdict
            yield verdict
    if silent and not speaks:
        raise RunError(no_verdict(silent))


def no_verdict(verdict: Verdict) -> str:
    """The message about a judge without a single verdict, of which this is the first."""
    reason = "; ".join(filter(None, [*verdict.categories, " ".join(verdict.raw.split())[:200]])) or "empty output"
    hint = ": raise its max_new_tokens, or switch thinking off" if ONLY_THINKING in verdict.categories else ""
    return f"the judge {verdict.judge_id} gave no verdict on any answer ({reason}){hint}"


def _ask(judge: Judge, exchanges: list[Exchange]) -> Iterator[list[Verdict]]:
    if isinstance(judge, StreamingJudge):
        held: list[Verdict] = []
        kept_at = time.monotonic()
        try:
            for verdict in judge.stream(exchanges):
                held.append(verdict)
                if time.monotonic() - kept_at >= KEEP_EVERY:
                    yield held
                    held, kept_at = [], time.monotonic()
        except (Exception, SystemExit, KeyboardInterrupt):
            # The server broke down, or the process is asked to end: what was judged is kept.
            if held:
                yield held
            raise
        if held:
            yield held
        return
    for start in range(0, len(exchanges), BATCH):
        yield judge.judge(exchanges[start : start + BATCH])
