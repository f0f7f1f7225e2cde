"""`LocalGenerator`: answers and log-likelihoods from a transformers model in this process."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bfpo.engine.reference_cache import model_digest
from bfpo.generation.choice_scoring import score_choices
from bfpo.generation.prompts import check_system_prompt, prompt_ids, render_prompt, template_digest
from bfpo.generation.protocol import (
    ChoiceLogps,
    ChoiceRequest,
    Completion,
    Decoding,
    Generator,
    ModelIdentity,
    Prompt,
    SampleRequest,
)
from bfpo.generation.sampling import in_rooms, sample_answers
from bfpo.models import context_length, load_model, load_tokenizer
from bfpo.sequences import packed


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
        check_system_prompt(self.tokenizer, self.system_prompt)

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
        return ModelIdentity(
            path=self.path,
            digest=model_digest(self.model, str(self.model.dtype)),
            chat_template_sha256=template_digest(self.tokenizer),
            system_prompt=self.system_prompt,
        )

    @property
    def model_paths(self) -> tuple[str, ...]:
        """The model's folder or Hub name, without reading its weights."""
        return (self.path,) if self.path else ()

    def render(self, prompt: Prompt) -> str:
        """The prompt rendered by the chat template."""
        return render_prompt(self.tokenizer, prompt, self.system_prompt)

    def plan(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[SampleRequest]]:
        """Batches of prompts of similar length, the shortest first."""
        sizes = [len(self.encode(request.prompt)) + decoding.max_new_tokens for request in requests]
        batches = packed(sizes, decoding.max_tokens, decoding.batch_size)
        return [[requests[at] for at in batch] for batch in batches]

    @torch.inference_mode()
    def generate(self, batch: Sequence[SampleRequest], decoding: Decoding) -> list[Completion]:
        """One answer to every request, in evaluation mode and without using the global random state.

        An answer ends at the model's context at the latest. A prompt that leaves no room for an answer gets none: the
        reason is its ``failure``.
        """
        prompts = [self.encode(request.prompt) for request in batch]
        return in_rooms(batch, prompts, context_length(self.model.config), decoding, self._sample)

    def _sample(
        self, batch: Sequence[SampleRequest], prompts: Sequence[list[int]], decoding: Decoding
    ) -> list[Completion]:
        return sample_answers(self.model, self.tokenizer, [request.seed for request in batch], prompts, decoding)

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

    def encode(self, prompt: Prompt) -> list[int]:
        """The prompt's token ids."""
        return prompt_ids(self.tokenizer, prompt, self.system_prompt)
