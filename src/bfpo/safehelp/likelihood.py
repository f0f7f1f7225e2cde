"""The likelihood runner: summed log-probabilities of given answers, on the path that training uses."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bfpo.engine.forward import Engine
from bfpo.engine.logps import TokenGroup
from bfpo.engine.reference import reference_logps
from bfpo.preferences.encoding import encode_group
from bfpo.safehelp.records import LikelihoodRecord
from bfpo.safehelp.suites import ChoiceItem


def run_choices(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[ChoiceItem], max_tokens: int = 16_384
) -> list[LikelihoodRecord]:
    """Score both answers of every item.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer; its chat template renders the prompts if it has one.
        items: what to score.
        max_tokens: padded tokens of one forward.
    """
    groups = []
    for item in items:
        prompt, answers, _ = encode_group(tokenizer, item.prompt, [item.preferred, item.other])
        groups.append(TokenGroup(prompt, answers))
    scored = reference_logps(Engine(model, "padded", max_tokens), model, groups)
    return [
        LikelihoodRecord(
            item=item.name,
            factor=item.factor,
            prompt=item.prompt,
            preferred=item.preferred,
            other=item.other,
            preferred_logp=preferred,
            other_logp=other,
            preferred_bytes=len(item.preferred.encode()),
            other_bytes=len(item.other.encode()),
        )
        for item, (preferred, other) in zip(items, scored, strict=True)
    ]
