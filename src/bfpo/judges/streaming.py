"""`verdicts` and `preferences`: any number of them, in order, in bounded memory, cached as they arrive."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from bfpo.errors import RunError
from bfpo.judges.cache import VerdictCache, preference_key, verdict_key
from bfpo.judges.preference import CHOICES, AnswerPair, HelpfulnessJudge, Preference
from bfpo.judges.unjudged import ONLY_THINKING, is_empty, is_unanswered, says_nothing
from bfpo.judges.verdict import Exchange, Judge, Verdict, is_probability, verdict_problems

# Largest number of exchanges, or pairs, in memory at once.
WINDOW = 4096
# Exchanges, or pairs, per call of a judge that doesn't stream; a kill loses no more than one call's verdicts.
BATCH = 256
# Pairs after which a judge of helpfulness without a single preference ends the run.
_ENOUGH = 5


@runtime_checkable
class StreamingJudge(Protocol):
    """A judge that yields its verdicts one by one, as a server's replies arrive."""

    def stream(self, exchanges: Iterable[Exchange]) -> Iterator[Verdict]:
        """One verdict for every exchange, in order."""
        ...


@runtime_checkable
class ClusterJudge(StreamingJudge, Protocol):
    """A streaming judge that may need more than a window at once to be busy."""

    @property
    def ahead(self) -> int:
        """Number of exchanges that it judges at once."""
        ...


def verdicts(judge: Judge, exchanges: Iterable[Exchange], cache: VerdictCache | None = None) -> Iterator[Verdict]:
    """One verdict for every exchange, in order; equal exchanges in a window are judged once.

    Args:
        judge: the judge.
        exchanges: the exchanges, read as needed.
        cache: earlier verdicts, to which new ones are added at once; a missing or unusable reply is not cached, so that
            the next run asks again.

    Raises:
        RunError: if the judge breaks the protocol; at the end, if not a single verdict could be read.
    """
    silent: Verdict | None = None
    speaks = asked = False
    streams = isinstance(judge, StreamingJudge)
    ask = partial(_as_they_arrive, judge.stream) if streams else partial(_in_calls, judge.judge_id, judge.judge)

    def keep(judged: list[tuple[Exchange, Verdict]]) -> None:
        nonlocal asked
        asked = True
        if cache is not None:
            cache.add(judge, [(exchange, verdict) for exchange, verdict in judged if not is_unanswered(verdict)])

    answered = _answered(
        judge.judge_id,
        exchanges,
        max(WINDOW, judge.ahead) if isinstance(judge, ClusterJudge) else WINDOW,
        key=lambda exchange: verdict_key(judge, exchange),
        recall=lambda exchange: None if cache is None else cache.get(judge, exchange),
        ask=ask,
        problem=_problem_of_verdict,
        keep=keep,
    )
    for exchange, verdict in answered:
        if not is_empty(exchange):
            speaks = speaks or not says_nothing(verdict)
            silent = silent or verdict
        yield verdict
    if silent and not speaks:
        cached = "" if asked else "; it was not asked again, as these replies are cached: name another --cache"
        raise RunError(no_verdict(silent) + cached)


def no_verdict(verdict: Verdict) -> str:
    """The message about a judge without a single verdict, of which this is the first."""
    reason = "; ".join(filter(None, [*verdict.categories, " ".join(verdict.raw.split())[:200]])) or "empty output"
    hint = ": raise its max_new_tokens, or switch thinking off" if ONLY_THINKING in verdict.categories else ""
    return f"the judge {verdict.judge_id} gave no verdict on any answer ({reason}){hint}"


@runtime_checkable
class StreamingHelpfulnessJudge(Protocol):
    """A judge of helpfulness that yields its preferences one by one, as a server's replies arrive."""

    def stream(self, pairs: Iterable[AnswerPair]) -> Iterator[Preference]:
        """One preference for every pair, in order."""
        ...


def preferences(
    judge: HelpfulnessJudge, pairs: Iterable[AnswerPair], cache: VerdictCache | None = None
) -> Iterator[Preference]:
    """One preference for every pair of answers; equal pairs in a window are compared once.

    Args:
        judge: the judge.
        pairs: the pairs, read as needed.
        cache: earlier preferences, to which new ones are added at once; one that couldn't be read is not cached, so
            that the next run asks again.

    Raises:
        RunError: if the judge breaks the protocol, or none of five or more preferences could be read; after the first
            window, or at the end.
    """
    streams = isinstance(judge, StreamingHelpfulnessJudge)
    ask = partial(_as_they_arrive, judge.stream) if streams else partial(_in_calls, judge.judge_id, judge.compare)

    def keep(compared: list[tuple[AnswerPair, Preference]]) -> None:
        if cache is not None:
            cache.add_preferences(judge, [(pair, found) for pair, found in compared if found.choice != "unparsed"])

    answered = _answered(
        judge.judge_id,
        pairs,
        WINDOW,
        key=lambda pair: preference_key(judge, pair),
        recall=lambda pair: None if cache is None else cache.get_preference(judge, pair),
        ask=ask,
        problem=_problem_of_preference,
        keep=keep,
    )
    silent: Preference | None = None
    speaks, count = False, 0
    for pair, preference in answered:
        if pair.first.strip() and pair.second.strip():
            speaks = speaks or preference.choice != "unparsed"
            silent, count = silent or preference, count + 1
            if silent and not speaks and count == WINDOW:
                break
        yield preference
    if silent and not speaks and count >= _ENOUGH:
        raise RunError(
            f"the judge {judge.judge_id} gave no preference for any pair ({silent.words}): correct its settings"
        )


_Item = TypeVar("_Item")
_Word = TypeVar("_Word")


def _answered(
    judge_id: str,
    items: Iterable[_Item],
    size: int,
    *,
    key: Callable[[_Item], bytes],
    recall: Callable[[_Item], _Word | None],
    ask: Callable[[Iterable[_Item]], Iterator[list[_Word]]],
    problem: Callable[[_Word], str | None],
    keep: Callable[[list[tuple[_Item, _Word]]], None],
) -> Iterator[tuple[_Item, _Word]]:
    """Every item with the judge's word on it, in order; those that can't be recalled are asked about, and kept."""
    window = _Window(iter(items), size, key, recall)
    given = 0
    while not window.is_last:
        missing = window.missing()
        for batch in ask(missing):
            given += len(batch)
            if given > window.asked:
                _check_count(judge_id, given, window.asked)
            if wrong := next(filter(None, map(problem, batch)), None):
                raise RunError(f"the judge {judge_id} gave an invalid reply ({wrong}); correct the judge")
            keep(window.take(batch))
            yield from window.ready()
        # What a judge that stops early wasn't asked counts, too.
        _check_count(judge_id, given, window.asked + sum(1 for _ in missing))
        yield from window.ready()


@dataclass
class _Place(Generic[_Word]):
    """Where the word on an item will be."""

    word: _Word | None


class _Window(Generic[_Item, _Word]):
    """The items from the first whose word is missing to the last that was looked up.

    Attributes:
        asked: number of items that the judge was asked about.
        is_last: whether all items were looked up.
    """

    def __init__(
        self,
        items: Iterator[_Item],
        size: int,
        key: Callable[[_Item], bytes],
        recall: Callable[[_Item], _Word | None],
    ) -> None:
        self.asked = 0
        self.is_last = False
        self._items, self._size, self._key, self._recall = items, size, key, recall
        self._open: deque[tuple[_Item, _Place[_Word]]] = deque()
        self._waiting: deque[tuple[_Item, _Place[_Word]]] = deque()
        # Of the last distinct items, so that equal ones are asked about once.
        self._places: dict[bytes, _Place[_Word]] = {}

    def missing(self) -> Iterator[_Item]:
        """Look up items until the window is full; yields the distinct ones that can't be recalled."""
        while len(self._open) < self._size:
            try:
                item = next(self._items)
            except StopIteration:
                self.is_last = True
                return
            key = self._key(item)
            is_new = key not in self._places
            if is_new:
                self._places[key] = _Place(self._recall(item))
                if len(self._places) > self._size:
                    del self._places[next(iter(self._places))]
            self._open.append((item, self._places[key]))
            if is_new and self._places[key].word is None:
                self._waiting.append(self._open[-1])
                self.asked += 1
                yield item

    def take(self, words: Sequence[_Word]) -> list[tuple[_Item, _Word]]:
        """Write words to the places that wait for them, in order."""
        taken: list[tuple[_Item, _Word]] = []
        for word in words:
            item, place = self._waiting.popleft()
            place.word = word
            taken.append((item, word))
        return taken

    def ready(self) -> Iterator[tuple[_Item, _Word]]:
        """The first items, as far as their words are known."""
        while self._open and (word := self._open[0][1].word) is not None:
            yield self._open.popleft()[0], word


def _check_count(judge_id: str, given: int, asked: int) -> None:
    if given != asked:
        raise RunError(
            f"the judge {judge_id} gave {given:,} replies to {asked:,} requests; correct the judge, which must give "
            "one for each, in order"
        )


def _problem_of_verdict(verdict: Any) -> str | None:
    if not isinstance(verdict, Verdict):
        return f"{repr(verdict)[:60]} is not a Verdict"
    return next((f"{column}: {problem}" for column, problem, _ in verdict_problems(vars(verdict))), None)


def _problem_of_preference(preference: Any) -> str | None:
    if not isinstance(preference, Preference):
        return f"{repr(preference)[:60]} is not a Preference"
    if preference.choice not in CHOICES:
        return f"choice: {preference.choice!r} is not one of {', '.join(CHOICES)}"
    if preference.choice == "unparsed" and preference.p_first is not None:
        return f"p_first: it is {preference.p_first!r} although the preference is unparsed"
    if preference.choice != "unparsed" and not is_probability(preference.p_first):
        return f"p_first: {preference.p_first!r} is not a probability"
    return None


def _in_calls(
    judge_id: str, call: Callable[[list[_Item]], Sequence[_Word]], items: Iterable[_Item]
) -> Iterator[list[_Word]]:
    """The judge's words, call by call."""
    rest = iter(items)
    while part := list(islice(rest, BATCH)):
        words = list(call(part))
        _check_count(judge_id, len(words), len(part))
        yield words


def _as_they_arrive(
    stream: Callable[[Iterable[_Item]], Iterator[_Word]], items: Iterable[_Item]
) -> Iterator[list[_Word]]:
    """The words of a judge that streams, one by one, so that each is cached at once, whatever happens to the next."""
    return ([word] for word in stream(items))
