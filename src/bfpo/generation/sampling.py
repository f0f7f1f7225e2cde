"""Sample answers from a local transformers model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bfpo.errors import BfpoError
from bfpo.generation.protocol import Asked, Completion, Decoding, Text
from bfpo.preferences.encoding import encode_prompt

__all__ = ["Completion", "Decoding", "LocalGenerator", "generate"]

# Probabilities that are sorted in double precision at once: 64 MB.
_SORTED_AT_ONCE = 8_000_000


@dataclass(frozen=True)
class LocalGenerator:
    """A transformers model that answers prompts, rendered with its chat template if there is one.

    An answer depends on the model, its prompt, its own seed and, by rounding alone, on the planned batch that it is in:
    neither on what was sampled before nor on the model's own defaults, of which only the end tokens are heeded.

    Attributes:
        model: a causal language model.
        tokenizer: its tokenizer.
        decoding: how to sample.
        system_prompt: what stands before every prompt, if anything.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    decoding: Decoding
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        if self.system_prompt is not None and not self.tokenizer.chat_template:
            raise BfpoError("the model has no chat template, so there is no place for a system prompt: leave it out")

    def render(self, prompt: Text) -> str:
        """The prompt after the chat template."""
        if isinstance(prompt, str) and not self.tokenizer.chat_template:
            return prompt
        return str(
            self.tokenizer.apply_chat_template(self._messages(prompt), add_generation_prompt=True, tokenize=False)  # pyright: ignore[reportArgumentType]
        )

    def plan(self, asked: Sequence[Asked]) -> list[list[Asked]]:
        """Batches of prompts of similar length, the shortest first."""
        sizes = [len(self._encode(one.prompt)) for one in asked]
        batches: list[list[Asked]] = []
        for at in sorted(range(len(asked)), key=lambda at: (sizes[at], at)):
            tokens = ((len(batches[-1]) if batches else 0) + 1) * (sizes[at] + self.decoding.max_new_tokens)
            full = not batches or len(batches[-1]) == self.decoding.batch_size or tokens > self.decoding.max_tokens
            if full:
                batches.append([])
            batches[-1].append(asked[at])
        return batches

    @torch.inference_mode()
    def answer(self, batch: Sequence[Asked]) -> list[Completion]:
        """Answers to one planned batch; dropout is off meanwhile and no random state of the caller's is touched."""
        prompts = [self._encode(one.prompt) for one in batch]
        ends = _end_tokens(self.model, self.tokenizer)
        processors = LogitsProcessorList()
        if self.decoding.temperature > 0:
            processors.append(_OwnSeeds([one.seed(self.decoding.seed) for one in batch], self.decoding))
        with _sampling_only(self.model):
            answers = _continue(self.model, self.tokenizer, prompts, ends, self.decoding.max_new_tokens, processors)
        return [_completion(self.tokenizer, ids, ends) for ids in answers]

    def _encode(self, prompt: Text) -> list[int]:
        return encode_prompt(self.tokenizer, prompt if self.system_prompt is None else self._messages(prompt))

    def _messages(self, prompt: Text) -> list[dict[str, str]]:
        system = [] if self.system_prompt is None else [{"role": "system", "content": self.system_prompt}]
        return [*system, *([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt)]


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Text], decoding: Decoding
) -> list[list[Completion]]:
    """Sample ``decoding.samples`` answers to every prompt (see `LocalGenerator`).

    Returns:
        For each prompt, in the order given, its answers.
    """
    generator = LocalGenerator(model, tokenizer, decoding)
    asked = [Asked(str(at), prompt, n) for at, prompt in enumerate(prompts) for n in range(decoding.samples)]
    answers = {
        (one.key, one.sample): completion
        for batch in generator.plan(asked)
        for one, completion in zip(batch, generator.answer(batch), strict=True)
    }
    return [[answers[str(at), number] for number in range(decoding.samples)] for at in range(len(prompts))]


class _OwnSeeds(LogitsProcessor):
    """Chooses every row's next token with that row's own random numbers, by inversion of the distribution function.

    transformers draws a whole batch from one generator, so that a row would depend on its place and on its neighbours;
    here one uniform number a row and token, from a generator seeded for the row, decides.
    """

    def __init__(self, seeds: Sequence[int], decoding: Decoding) -> None:
        self._uniform = np.stack([np.random.default_rng(seed).random(decoding.max_new_tokens) for seed in seeds])
        self._decoding = decoding
        self._step = 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores that leave one token a row."""
        uniform = torch.from_numpy(self._uniform[:, self._step]).to(scores.device)
        self._step += 1
        chosen = torch.full_like(scores, -torch.inf)
        rows = max(1, _SORTED_AT_ONCE // scores.shape[1])
        for start in range(0, len(scores), rows):
            part = slice(start, start + rows)
            chosen[part].scatter_(1, self._tokens(scores[part], uniform[part])[:, None], 0.0)
        return chosen

    def _tokens(self, scores: Tensor, uniform: Tensor) -> Tensor:
        """[R] tokens drawn from the tempered nucleus: the likeliest tokens that together reach ``top_p``."""
        likely, order = (scores.double() / self._decoding.temperature).softmax(-1).sort(descending=True, stable=True)
        reached = likely.cumsum(-1)
        likely = likely.where(reached - likely < self._decoding.top_p, 0.0)
        reached = likely.cumsum(-1)
        # The last place of the nucleus is the most that rounding may reach.
        place = torch.searchsorted(reached, (uniform * reached[:, -1])[:, None], right=True)[:, 0]
        return order.gather(1, torch.minimum(place, (likely > 0).sum(-1) - 1)[:, None])[:, 0]


@contextmanager
def _sampling_only(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, without the model's own decoding defaults; both put back."""
    was_training, defaults = model.training, model.generation_config
    model.eval()
    # `generate` fills what a configuration leaves open (a repetition penalty, say) from this one.
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = defaults
        model.train(was_training)


def _continue(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    ends: list[int],
    max_new_tokens: int,
    processors: LogitsProcessorList,
) -> list[list[int]]:
    """Token ids that follow each prompt."""
    width = max(map(len, prompts))
    device = next(model.parameters()).device
    # Any token does where attention is masked.
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=ends or None, pad_token_id=pad
    )
    output = model.generate(  # pyright: ignore
        input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=processors
    )
    return output[:, width:].tolist()  # pyright: ignore


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokenizer's end of sequence and whatever else the model was made to stop at."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ends: list[Any] = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*ends, tokenizer.eos_token_id] if token is not None})


def _completion(tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: Sequence[int]) -> Completion:
    stop = next((at for at, token in enumerate(ids) if token in ends), None)
    text = tokenizer.decode(ids[:stop], skip_special_tokens=True)
    assert isinstance(text, str)
    return Completion(text.strip(), stop is None, len(ids) if stop is None else stop)
