"""Judging a part of a set, so that several processes or machines share the work; their caches are merged."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bfpo.errors import BfpoError
from bfpo.judges.cache import VerdictCache
from bfpo.judges.exchanges import Exchanges
from bfpo.judges.preference import AnswerPair, HelpfulnessJudge
from bfpo.judges.streaming import preferences, verdicts
from bfpo.judges.verdict import Exchange, Judge
from bfpo.labeling.order_filling import answer_pairs, has_open_order
from bfpo.preferences.label_sources import rows_with_sources
from bfpo.preferences.reading import Row
from bfpo.shards import Shard


def is_in(shard: Shard, *texts: str) -> bool:
    """Whether texts to judge are in a part, by a digest of them: wherever they occur, they are in the same part."""
    digest = hashlib.sha256(json.dumps(texts).encode()).digest()
    return shard.has(int.from_bytes(digest[:8]))


def judge_shard(
    source: str,
    judges: Sequence[Judge],
    order_judge: HelpfulnessJudge | None,
    shard: Shard,
    cache: VerdictCache,
    reading: Mapping[str, Any],
) -> PartJudged:
    """Put the verdicts and preferences on a part of a set into a cache.

    The set is read from a file or the Hub, with the further arguments ``reading`` of `load_preferences`. Pairs are
    compared if a single one has no order from people, as `fill_orders` does.

    Raises:
        BfpoError: if the source has problems, or there is no judge.
        RunError: if a judge gives no verdict at all.
    """
    if not judges and order_judge is None:
        raise BfpoError("--shard judges a part of the set: name a judge with --judge or --helpfulness-judge")

    def rows() -> Iterable[Row]:
        return rows_with_sources(source, **reading)

    answers, pairs = Counter[bool](), Counter[bool]()
    for judge in judges:
        answers.clear()
        for _ in verdicts(judge, _own(Exchanges(rows()), shard, _texts_of_exchange, answers), cache):
            pass
    if order_judge is not None and has_open_order(rows()):
        for _ in preferences(order_judge, _own(answer_pairs(rows()), shard, _texts_of_pair, pairs), cache):
            pass
    return PartJudged(answers[True], answers.total(), pairs[True], pairs.total())


@dataclass(frozen=True)
class PartJudged:
    """What a part of a set holds.

    Attributes:
        answers: number of its answers that were judged, out of ``all_answers``.
        pairs: number of its pairs that were compared, out of ``all_pairs``.
    """

    answers: int
    all_answers: int
    pairs: int
    all_pairs: int


_Item = TypeVar("_Item")


def _own(
    items: Iterable[_Item], shard: Shard, texts: Callable[[_Item], Sequence[str]], counts: Counter[bool]
) -> Iterator[_Item]:
    """The items in a part; counts those in it and those that aren't."""
    for item in items:
        is_own = is_in(shard, *texts(item))
        counts[is_own] += 1
        if is_own:
            yield item


def _texts_of_exchange(exchange: Exchange) -> Sequence[str]:
    return exchange.prompt, exchange.answer


def _texts_of_pair(pair: AnswerPair) -> Sequence[str]:
    return pair.prompt, pair.first, pair.second
