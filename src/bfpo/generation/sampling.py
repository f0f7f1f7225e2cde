"""Sample answers from a local transformers model."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
        batch_size: answers that are sampled at once, at most.
        max_tokens: padded tokens of prompts and answers that are held at once, at most; a prompt that needs more
            is sampled alone.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    samples: int = 1
    max_new_tokens: int = 256
    seed: int = 0
    batch_size: int = 256
    max_tokens: int = 32_768


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
    seed and its prompts: an answer depends neither on what was sampled before nor on the model's own defaults
    (of which only its end tokens are heeded). Dropout is off meanwhile, and the caller's random numbers go on as if
    nothing had been sampled.

    Returns:
        For each prompt, in the order given, its answers.
    """
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    ends = _end_tokens(model, tokenizer)
    seen: Counter[str] = Counter()
    completions: list[list[Completion]] = [[] for _ in prompts]
    with _sampling_only(model):
        for batch in _plan(encoded, decoding):
            ids = [encoded[at] for at in batch]
            key = repr((decoding.seed, ids))
            # The same prompts in another batch, as with many samples, must not get the same answers again.
            torch.manual_seed(_seed(key + "+" * seen[key]))
            seen[key] += 1
            for at, completion in zip(batch, _sample(model, tokenizer, ids, ends, decoding), strict=True):
                completions[at].append(completion)
    return completions


def _plan(prompts: Sequence[Sequence[int]], decoding: Decoding) -> Iterator[list[int]]:
    """Indices of the prompts to be sampled together, each as often as it has samples, the shortest first."""
    order = sorted(range(len(prompts)), key=lambda at: (len(prompts[at]), at))
    batch: list[int] = []
    for at in (at for at in order for _ in range(decoding.samples)):
        tokens = (len(batch) + 1) * (len(prompts[at]) + decoding.max_new_tokens)
        if batch and (len(batch) == decoding.batch_size or tokens > decoding.max_tokens):
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def _seed(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")


@contextmanager
def _sampling_only(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, without the model's own decoding defaults; all of it, and the random state, put back."""
    was_training, defaults = model.training, model.generation_config
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        model.eval()
        # `generate` fills what a configuration leaves open (a repetition penalty, say) from this one.
        model.generation_config = GenerationConfig()
        try:
            yield
        finally:
            model.generation_config = defaults
            model.train(was_training)


def _sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    ends: list[int],
    decoding: Decoding,
) -> list[Completion]:
    width = max(map(len, prompts))
    device = next(model.parameters()).device
    # Any token does where attention is masked.
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    sampled = decoding.temperature > 0
    config = GenerationConfig(
        do_sample=sampled,
        **({"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0} if sampled else {}),
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=ends or None,
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
