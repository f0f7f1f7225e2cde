"""Continuation of prompts by a transformers model, for answers and for the outputs of judges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from bfpo.errors import RunError


def continued(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    ends: Sequence[int],
    max_new_tokens: int,
    processors: LogitsProcessorList,
) -> list[list[int]]:
    """Token ids after each prompt, the likeliest ones after the processors; what follows an end token means nothing.

    The model is in evaluation mode meanwhile, and its own generation defaults don't count.

    Raises:
        RunError: if the model's first scores are not numbers, or memory doesn't suffice.
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
    doing = f"continuing {len(prompts):,} prompts of up to {width:,} tokens by {max_new_tokens:,}"
    try:
        with enough_memory(doing):
            output = model.generate(  # pyright: ignore
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=LogitsProcessorList([_FirstAreNumbers(), *processors]),
            )
    finally:
        model.generation_config = defaults
        model.train(was_training)
    return output[:, width:].tolist()  # pyright: ignore


class _FirstAreNumbers(LogitsProcessor):
    """Refuses a model whose weights diverged, whose likeliest token would otherwise always be the first one.

    Only the first scores are looked at: looking waits for the device.
    """

    def __init__(self) -> None:
        self._looked = False

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if not self._looked:
            refuse_nan(scores)
            self._looked = True
        return scores


@contextmanager
def enough_memory(doing: str) -> Iterator[None]:
    """Context of a forward pass; an allocation that fails on a GPU gets a sentence with what was being done.

    Raises:
        RunError: if an allocation fails.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"out of memory while {doing}: lower --batch-size or --max-new-tokens if these are answers; otherwise use "
            "a smaller model, or a GPU with more memory"
        ) from error


def refuse_nan(scores: torch.Tensor) -> None:
    """Raise an error if a model's scores are not numbers.

    Raises:
        RunError: if one is NaN.
    """
    if bool(scores.isnan().any()):
        raise RunError(
            "the model's scores are not numbers (NaN): its training diverged, or this precision is too small for it; "
            "look at the training's loss, or load it in another precision"
        )
