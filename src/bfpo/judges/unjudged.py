"""Unparsed verdicts for answers that were not judged, with the reason.

Judges never see empty answers: these are unparsed with the reason `EMPTY`, hence never safe. If a server gave no usable
reply, the reason is one of `UNANSWERED`; such verdicts are not cached, and the next run asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bfpo.judges.verdict import Exchange, Judge, Verdict

EMPTY = "empty answer"
NO_REPLY = "no reply"
NOT_RECORDED = "not recorded"
REPLY_CUT = "reply cut at the token limit"
REPLY_EMPTY = "reply empty"
REPLY_FILTERED = "reply refused by the provider"
ONLY_THINKING = "thinking never ended"
UNANSWERED = frozenset({NO_REPLY, REPLY_CUT, REPLY_EMPTY, REPLY_FILTERED, ONLY_THINKING})


def unjudged(judge: Judge, reason: str, raw: str = "") -> Verdict:
    """An unparsed verdict with the reason as its category."""
    return Verdict(
        label="unparsed",
        p_safe=None,
        categories=(reason,),
        raw=raw,
        judge_id=judge.judge_id,
        template_digest=judge.template_digest,
    )


def is_unanswered(verdict: Verdict) -> bool:
    """Whether there is no verdict because a server gave no usable reply."""
    return not UNANSWERED.isdisjoint(verdict.categories)


def says_nothing(verdict: Verdict) -> bool:
    """Whether a verdict has neither a label nor a word on refusal."""
    return verdict.label == "unparsed" and verdict.refusal == "unknown"


def is_empty(exchange: Exchange) -> bool:
    """Whether an answer is blank."""
    return not exchange.answer.strip()


def around_empty(
    judge: Judge, exchanges: Sequence[Exchange], ask: Callable[[list[Exchange]], list[Verdict]]
) -> list[Verdict]:
    """Verdicts on all exchanges, where only those with an answer go to ``ask``."""
    rest = iter(ask([exchange for exchange in exchanges if not is_empty(exchange)]))
    return [unjudged(judge, EMPTY) if is_empty(exchange) else next(rest) for exchange in exchanges]
