"""Counts of a run: its prompts, answers and tokens, and what is missing of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bfpo.safehelp.records import GenerationRecord, LikelihoodRecord


def count_records(generations: Sequence[GenerationRecord], likelihoods: Sequence[LikelihoodRecord]) -> dict[str, int]:
    """Numbers of prompts, answers and items by likelihood, of those that lack something, and of a server's tokens."""
    tokens: Counter[str] = Counter()
    for record in generations:
        tokens.update(record.usage or {})
    return {
        "prompts": len({(record.task, record.item) for record in generations}),
        "answers": len(generations),
        "truncated": sum(record.truncated for record in generations),
        "empty": sum(record.answer_kind == "incoherent" and not record.answer.strip() for record in generations),
        "unparsed": sum(record.answer_kind == "unjudged" and not record.tells_only_refusal for record in generations),
        "uncompared": sum(bool(record.uncompared) for record in generations),
        "unknown_refusals": sum(record.kind == "borderline" and record.leaves_refusal_open for record in generations),
        "provider_refusals": sum(bool(record.refusal) for record in generations),
        "unanswered": sum(bool(record.failure) for record in generations),
        "only_thinking": sum(record.only_thinking for record in generations),
        "likelihoods": len(likelihoods),
        "truncated_likelihoods": sum(record.truncated for record in likelihoods),
        **{f"{name}_tokens": count for name, count in tokens.items()},
    }
