"""Sample answers from a local transformers model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from bfpo.preferences.encoding import Text, encode_prompt


@dataclass(frozen=True)
class Decoding:
    """How answers are sampled.

    Attributes:
        temperature: of the softmax; 0 takes the likeliest token.
        top_p: share of the probability that is sampled from.
        samples: answers to each prompt.
        max_new_tokens: tokens after which an answer is cut.
        seed: of all sampling.
        batch_size: answers that are sampled at once.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    samples: int = 1
    max_new_tokens: int = 256
    seed: int = 0
    batch_size: int = 256


@dataclass(frozen=True)
class Completion:
    """One sampled answer, and whether it was cut before its end."""

    text: str
    truncated: bool


@torch.inference_mode()
def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Text], decoding: Decoding
) -> list[list[Completion]]:
    """Sample ``decoding.samples`` answers to every prompt, rendered with the chat template if there is one.

    The batches are planned from the list of prompts alone, and each has a seed of its own made of the decoding's
    seed and its prompts: an answer doesn't depend on what was sampled before. Dropout is off meanwhile.

    Returns:
        For each prompt, in the order given, its answers.
    """
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda at: (len(encoded[at]), at))
    work = [(at, sample) for at in order for sample in range(decoding.samples)]
    completions: list[list[Completion]] = [[] for _ in prompts]
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(work), decoding.batch_size):
            batch = work[start : start + decoding.batch_size]
            torch.manual_seed(_seed(decoding.seed, [encoded[at] for at, _ in batch]))
            texts = _sample(model, tokenizer, [encoded[at] for at, _ in batch], decoding)
            for (at, _), completion in zip(batch, texts, strict=True):
                completions[at].append(completion)
    finally:
        model.train(was_training)
    return completions


def _seed(seed: int, prompts: Sequence[Sequence[int]]) -> int:
    return int.from_bytes(hashlib.sha256(repr((seed, prompts)).encode()).digest()[:7], "big")


def _sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]], decoding: Decoding
) -> list[Completion]:
    width = max(map(len, prompts))
    device = next(model.parameters()).device
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    sampled = decoding.temperature > 0
    ends = _end_tokens(model, tokenizer)
    config = GenerationConfig(
        do_sample=sampled,
        **({"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0} if sampled else {}),
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=ends,
        pad_token_id=pad,
    )
    output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)  # pyright: ignore
    return [_completion(tokenizer, answer, ends) for answer in output[:, width:].tolist()]  # pyright: ignore


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokenizer's end of sequence and whatever else the model was made to stop at."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ends = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*ends, tokenizer.eos_token_id] if token is not None})


def _completion(tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: Sequence[int]) -> Completion:
    stop = next((at for at, token in enumerate(ids) if token in ends), None)
    text = tokenizer.decode(ids[:stop], skip_special_tokens=True)
    assert isinstance(text, str)
    return Completion(text.strip(), truncated=stop is None)
