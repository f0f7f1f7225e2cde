"""Continuation of prompts by a transformers model, for answers and for the outputs of judges."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel


def continued(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    ends: Sequence[int],
    max_new_tokens: int,
    processors: LogitsProcessorList,
) -> list[list[int]]:
    """Token ids after each prompt, the likeliest ones after the processors; what follows an end token means nothing.

    The model is in evaluation mode meanwhile, and its own generation defaults don't count.
    """
    width = max(map(len, prompts))
    device = next(model.parameters()).device
    # Attention is masked at padding, so any token works.
    pad = next(iter(ends), 0)
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(ends) or None, pad_token_id=pad
    )
    was_training, defaults = model.training, model.generation_config
    model.eval()
    # `generate` takes unset values (such as a repetition penalty) from this configuration.
    model.generation_config = GenerationConfig()
    try:
        output = model.generate(  # pyright: ignore
            input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=processors
        )
    finally:
        model.generation_config = defaults
        model.train(was_training)
    return output[:, width:].tolist()  # pyright: ignore
