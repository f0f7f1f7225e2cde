"""The padded layout: log-probabilities by a plain forward with one right-padded row per answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bfpo.groups import GroupLogps, TokenGroup


def padded_logps(model: nn.Module, groups: Sequence[TokenGroup]) -> GroupLogps:
    """Sum the log-probabilities of every answer's scored tokens, given its prompt.

    Args:
        model: a causal language model (or a wrapper of one) whose forward takes ``logits_to_keep``.
        groups: G groups with N answers in total.

    Returns:
        [N] sums and token counts, in at least float32; ``reference`` is None.
    """
    sequences = [
        (group.prompt, answer, group.scored(at)) for group in groups for at, answer in enumerate(group.answers)
    ]
    width = max(len(prompt) + len(answer) for prompt, answer, _ in sequences)
    shortest_prompt = min(len(prompt) for prompt, _, _ in sequences)
    device = next(model.parameters()).device
    input_ids = torch.zeros(len(sequences), width, dtype=torch.long)
    is_scored = torch.zeros(len(sequences), width, dtype=torch.bool)
    for row, (prompt, answer, places) in enumerate(sequences):
        input_ids[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        is_scored[row, len(prompt) + torch.tensor(list(places), dtype=torch.long)] = True
    input_ids, is_scored = input_ids.to(device), is_scored.to(device)

    # Right padding is invisible to causal attention and needs no mask (with one, tokens whose sliding window contains
    # only padding are NaN in some models). Logits predict the next token, so one more position than there are after the
    # shortest prompt is kept, and the last one is dropped.
    kept = width - shortest_prompt + 1
    logits = model(input_ids=input_ids, use_cache=False, logits_to_keep=kept).logits[:, :-1]
    scored = is_scored[:, shortest_prompt:]
    token_logps = -cross_entropy(
        logits[scored].to(torch.promote_types(logits.dtype, torch.float32)),
        input_ids[:, shortest_prompt:][scored],
        reduction="none",
    )
    return GroupLogps(
        policy=token_logps.new_zeros(len(sequences)).index_add(0, scored.nonzero()[:, 0], token_logps),
        reference=None,
        tokens=is_scored.sum(1),
        group=torch.tensor([index for index, group in enumerate(groups) for _ in group.answers], device=device),
        groups=len(groups),
    )
