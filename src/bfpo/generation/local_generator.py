"""`LocalGenerator`: answers and log-likelihoods from a transformers model in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bfpo.engine.reference_cache import model_digest
from bfpo.errors import BfpoError
from bfpo.generation.choice_encoding import context_length
from bfpo.generation.choice_scoring import score_choices
from bfpo.generation.nucleus import sample_tokens
from bfpo.generation.protocol import (
    ChoiceLogps,
    ChoiceRequest,
    Completion,
    Decoding,
    Generator,
    ModelIdentity,
    Prompt,
    SampleRequest,
    as_messages,
)
from bfpo.models import end_tokens, load_model, load_tokenizer
from bfpo.preferences.encoding import encode_prompt


@dataclass(frozen=True)
class LocalGenerator(Generator):
    """A transformers model that answers prompts and scores given texts, through its chat template if it has one.

    An answer depends on the model, its prompt, its own seed and, only by rounding, on its planned batch. It depends
    neither on earlier samples nor on the model's generation defaults, except for its end tokens.

    Attributes:
        model: a causal language model.
        tokenizer: its tokenizer; without a chat template prompts are plain text.
        system_prompt: system prompt before every prompt, if any.
        path: folder or Hub name of the model, for the run's header.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    system_prompt: str | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if self.system_prompt is not None and not self.tokenizer.chat_template:
            raise BfpoError("the model has no chat template, so it takes no system prompt: leave it out")

    @classmethod
    def load(cls, name: str | Path, system_prompt: str | None = None, *, chat: bool = True) -> LocalGenerator:
        """Load a model; without ``chat`` its chat template is ignored. See `bfpo.models.load_model`."""
        tokenizer = load_tokenizer(name)
        if not chat:
            tokenizer.chat_template = None
        return cls(load_model(name), tokenizer, system_prompt, str(name))

    @property
    def identity(self) -> ModelIdentity:
        """Digests of the current weights and of the chat template; reads all weights."""
        template = self.tokenizer.chat_template
        return ModelIdentity(
            path=self.path,
            digest=model_digest(self.model, str(self.model.dtype)),
            chat_template_sha256=hashlib.sha256(str(template).encode()).hexdigest() if template else None,
            system_prompt=self.system_prompt,
        )

    def render(self, prompt: Prompt) -> str:
        """The prompt rendered by the chat template."""
        if isinstance(prompt, str) and not self.tokenizer.chat_template:
            return prompt
        messages = as_messages(prompt, self.system_prompt)
        rendered: Any = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return str(rendered)

    def plan(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[SampleRequest]]:
        """Batches of prompts of similar length, the shortest first."""
        sizes = [len(self._encode(request.prompt)) for request in requests]
        batches: list[list[SampleRequest]] = []
        for at in sorted(range(len(requests)), key=lambda at: (sizes[at], at)):
            tokens = ((len(batches[-1]) if batches else 0) + 1) * (sizes[at] + decoding.max_new_tokens)
            full = not batches or len(batches[-1]) == decoding.batch_size or tokens > decoding.max_tokens
            if full:
                batches.append([])
            batches[-1].append(requests[at])
        return batches

    @torch.inference_mode()
    def generate(self, batch: Sequence[SampleRequest], decoding: Decoding) -> list[Completion]:
        """One answer to every request, in evaluation mode and without using the global random state.

        An answer ends at the model's context at the latest. A prompt that leaves no room for an answer gets none: the
        reason is its ``failure``.
        """
        prompts = [self._encode(request.prompt) for request in batch]
        context = context_length(self.model.config)
        by_room: dict[int, list[int]] = {}
        for at, prompt in enumerate(prompts):
            room = decoding.max_new_tokens if context is None else min(decoding.max_new_tokens, context - len(prompt))
            by_room.setdefault(room, []).append(at)
        found: dict[int, Completion] = {}
        for room, rows in by_room.items():
            if room < 1:
                found |= {at: _no_room(len(prompts[at]), context) for at in rows}
            else:
                of_room = [batch[at] for at in rows], [prompts[at] for at in rows]
                found |= zip(rows, self._sample(*of_room, replace(decoding, max_new_tokens=room)), strict=True)
        return [found[at] for at in range(len(batch))]

    def _sample(
        self, batch: Sequence[SampleRequest], prompts: Sequence[list[int]], decoding: Decoding
    ) -> list[Completion]:
        ends = end_tokens(self.model.generation_config, self.tokenizer)
        processors = LogitsProcessorList()
        if decoding.temperature > 0:
            processors.append(_SeededSampler([request.seed for request in batch], decoding))
        with _plain_sampling(self.model):
            answers = _continue(self.model, self.tokenizer, prompts, ends, decoding.max_new_tokens, processors)
        return [_completion(self.tokenizer, ids, ends) for ids in answers]

    def score_choices(
        self, requests: Sequence[ChoiceRequest], done: Collection[str] = frozenset()
    ) -> Iterator[list[ChoiceLogps]]:
        """Log-likelihoods equal to lm-eval's; see `bfpo.generation.choice_scoring.score_choices`."""
        return score_choices(
            self.model,
            self.tokenizer,
            requests,
            chat=bool(self.tokenizer.chat_template),
            system_prompt=self.system_prompt,
            done=done,
        )

    def _encode(self, prompt: Prompt) -> list[int]:
        return encode_prompt(
            self.tokenizer, prompt if self.system_prompt is None else as_messages(prompt, self.system_prompt)
        )


class _SeededSampler(LogitsProcessor):
    """Samples every row's next token from the row's own random numbers, by inverse transform sampling.

    transformers samples a whole batch from one random generator, so a row would depend on its position and neighbors.
    Here each row has its own seeded generator, which yields one uniform number per token.
    """

    def __init__(self, seeds: Sequence[int], decoding: Decoding) -> None:
        self._uniform = np.stack([np.random.default_rng(seed).random(decoding.max_new_tokens) for seed in seeds])
        self._decoding = decoding
        self._step = 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The scores, with an infinite one for the token sampled in each row."""
        uniform = torch.from_numpy(self._uniform[:, self._step]).to(scores.device)
        self._step += 1
        tokens = sample_tokens(scores, uniform, self._decoding.temperature, self._decoding.top_p)
        return scores.scatter_(1, tokens[:, None], torch.inf)


@contextmanager
def _plain_sampling(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode without the model's own generation defaults; restores both."""
    was_training, defaults = model.training, model.generation_config
    model.eval()
    # `generate` takes unset values (such as a repetition penalty) from this configuration.
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
    """Sampled token ids after each prompt."""
    width = max(map(len, prompts))
    device = next(model.parameters()).device
    # Attention is masked at padding, so any token works.
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


def _no_room(tokens: int, context: int | None) -> Completion:
    return Completion("", False, failure=f"the prompt has {tokens:,} tokens, and the model's context is {context:,}")


def _completion(tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: Sequence[int]) -> Completion:
    stop = next((at for at, token in enumerate(ids) if token in ends), None)
    text = tokenizer.decode(ids[:stop], skip_special_tokens=True)
    assert isinstance(text, str)
    return Completion(text.strip(), stop is None, len(ids) if stop is None else stop)
