"""Judging a part of a set, so that several processes or machines share the work; their caches are merged."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bfpo.errors import BfpoError
from bfpo.judges.cache import VerdictCache
from bfpo.judges.exchanges import exchange_of
from bfpo.judges.streaming import verdicts
from bfpo.judges.verdict import Exchange, Judge
from bfpo.preferences.checking import flags_of
from bfpo.preferences.label_sources import rows_with_sources


@dataclass(frozen=True)
class Shard:
    """One of several parts of a set: each exchange, wherever it occurs, is in the same part."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``i/n``, counted from 1.

        Raises:
            BfpoError: if it is something else.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise BfpoError(f"--shard {text}: write the part and the number of parts, such as 1/8 to 8/8")
        return cls(int(match[1]), int(match[2]))

    def has(self, exchange: Exchange) -> bool:
        """Whether an exchange is in this part, by a digest of its texts."""
        digest = hashlib.sha256(json.dumps([exchange.prompt, exchange.answer]).encode()).digest()
        return int.from_bytes(digest[:8]) % self.of == self.number - 1


def judge_shard(
    source: str, judges: Sequence[Judge], shard: Shard, cache: VerdictCache, reading: Mapping[str, Any]
) -> tuple[int, int]:
    """Put the verdicts on a part of a set's answers into a cache; returns the numbers of its answers and of all.

    Args:
        source: file or Hub data set of preferences.
        judges: safety judges.
        shard: the part.
        cache: cache of verdicts.
        reading: further arguments of `load_preferences` (split, revision, columns).

    Raises:
        BfpoError: if the source has problems, or there is no judge.
        RunError: if a judge gives no verdict at all.
    """
    if not judges:
        raise BfpoError("--shard judges a part of the answers: name a judge with --judge")
    rows = rows_with_sources(source, **reading)
    exchanges = [exchange_of(row, number) for row in rows for number in range(len(flags_of(row)))]
    own = [exchange for exchange in exchanges if shard.has(exchange)]
    for judge in judges:
        for _ in verdicts(judge, own, cache):
            pass
    return len(own), len(exchanges)
