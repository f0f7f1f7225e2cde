"""Answers that got no verdict, and why: the one place that decides what an empty answer is.

An empty answer shows neither harm nor help, so nobody is asked about it: it is unparsed, with the reason `EMPTY`, and
hence never safe. A reply that never came is unparsed too, with the reason `NO_REPLY`, and is asked for again by the
next run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from bfpo.judges.verdict import Exchange, Verdict

EMPTY = "empty answer"
NO_REPLY = "no reply"
NOT_RECORDED = "not recorded"


class Identified(Protocol):
    """What signs a verdict."""

    @property
    def judge_id(self) -> str: ...  # noqa: D102

    @property
    def template_digest(self) -> str: ...  # noqa: D102


def unjudged(judge: Identified, reason: str, raw: str = "") -> Verdict:
    """A verdict that says nothing but why; the reason stands among its categories."""
    return Verdict(
        label="unparsed",
        p_safe=None,
        categories=(reason,),
        raw=raw,
        judge_id=judge.judge_id,
        template_digest=judge.template_digest,
    )


def is_empty(exchange: Exchange) -> bool:
    """Whether an answer holds nothing but white space."""
    return not exchange.answer.strip()


def around_empty(
    judge: Identified, exchanges: Sequence[Exchange], ask: Callable[[list[Exchange]], list[Verdict]]
) -> list[Verdict]:
    """Ask about the answers that are there, and put the verdict on empty ones in between.

    Args:
        judge: who signs.
        exchanges: all of them.
        ask: verdicts on answers that are not empty, in the order given.
    """
    asked = ask([exchange for exchange in exchanges if not is_empty(exchange)])
    rest = iter(asked)
    return [unjudged(judge, EMPTY) if is_empty(exchange) else next(rest) for exchange in exchanges]
