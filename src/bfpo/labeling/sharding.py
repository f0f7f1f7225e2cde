"""Judging a part of a set, so that several processes or machines share the work; their caches are merged."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bfpo.errors import BfpoError
from bfpo.judges.cache import VerdictCache
from bfpo.judges.exchanges import Exchanges
from bfpo.judges.streaming import verdicts
from bfpo.judges.verdict import Exchange, Judge
from bfpo.preferences.label_sources import rows_with_sources
from bfpo.shards import Shard


def is_in(shard: Shard, exchange: Exchange) -> bool:
    """Whether an exchange is in a part, by a digest of its texts: wherever it occurs, it is in the same part."""
    digest = hashlib.sha256(json.dumps([exchange.prompt, exchange.answer]).encode()).digest()
    return shard.has(int.from_bytes(digest[:8]))


def judge_shard(
    source: str, judges: Sequence[Judge], shard: Shard, cache: VerdictCache, reading: Mapping[str, Any]
) -> tuple[int, int]:
    """Put the verdicts on a part of a set's answers into a cache; returns the numbers of its answers and of all.

    The set is read from a file or the Hub, with the further arguments ``reading`` of `load_preferences`.

    Raises:
        BfpoError: if the source has problems, or there is no judge.
        RunError: if a judge gives no verdict at all.
    """
    if not judges:
        raise BfpoError("--shard judges a part of the answers: name a judge with --judge")
    counts = Counter[str]()

    def own() -> Iterator[Exchange]:
        for exchange in Exchanges(rows_with_sources(source, **reading)):
            counts["all"] += 1
            if is_in(shard, exchange):
                counts["own"] += 1
                yield exchange

    for judge in judges:
        counts.clear()
        for _ in verdicts(judge, own(), cache):
            pass
    return counts["own"], counts["all"]
