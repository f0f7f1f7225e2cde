"""`Dial`: answers of every policy between two trained ones, without training it.

BFPO's optimum is pi(y) = pi_ref(y) exp(R(y)/beta)/Z, and R is affine in b3 (docs/concepts.md). So at one beta and
alpha the policies of all b3 are geometric mixtures of two: pi = pi_low^(1 - w) pi_high^w / Z, with w the place of b3
between the two. Mixing token by token (Mitchell et al. 2023, arXiv 2310.12962; DeRa, arXiv 2402.02992; MOD, arXiv
2406.18853) gives another policy q; the two differ by the factors by which each token's mixture is normalized.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedModel

from bfpo.errors import BfpoError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import (
    Completion,
    Decoding,
    Generator,
    ModelIdentity,
    Prompt,
    SampleRequest,
    sample_requests,
)
from bfpo.generation.sampling import in_rooms, sample_answers
from bfpo.models import context_length, end_tokens


@dataclass(frozen=True)
class Dial(Generator):
    """The policy pi_low^(1 - w) pi_high^w / Z of two models with one tokenizer.

    The exact form draws candidates from the mixture token by token and accepts one with probability Z_1 ... Z_n, the
    product of its tokens' normalizers. Each Z_t <= 1 (Hoelder's inequality) for 0 <= w <= 1, so accepted answers follow
    pi exactly. If all ``candidates`` are rejected, one of them is drawn by these weights, which is exact only for many.

    Attributes:
        low: the model at w = 0.
        high: the model at w = 1.
        share: w, in [0, 1].
        candidates: largest number of candidates for an answer; 1 for the mixture token by token.
        counts: numbers of answers, of candidates sampled for them, and of answers drawn by weight.

    Raises:
        BfpoError: if a value is out of range, or the tokenizers differ.
    """

    low: LocalGenerator
    high: LocalGenerator
    share: float
    candidates: int = 32
    counts: Counter[str] = field(default_factory=Counter[str], compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise BfpoError(
                f"the dial stands between its two models, so its share must lie in [0, 1], not {self.share}"
            )
        if self.candidates < 1:
            raise BfpoError(f"candidates must be 1 (token by token) or more, not {self.candidates}")
        if self.low.tokenizer.get_vocab() != self.high.tokenizer.get_vocab():
            raise BfpoError("the dial's two models have different tokenizers: train both from one model")

    @property
    def identity(self) -> ModelIdentity:
        """Digest of both models and the share."""
        low = self.low.identity
        both = (low.digest, self.high.identity.digest, self.share, self.candidates)
        digest = hashlib.sha256(repr(both).encode()).hexdigest()
        return replace(low, path=f"{self.low.path} .. {self.high.path} at {self.share:g}", digest=digest)

    @property
    def model_paths(self) -> tuple[str, ...]:
        """Those of both models."""
        return (*self.low.model_paths, *self.high.model_paths)

    def defaults(self, decoding: Decoding) -> Decoding:
        """Temperature 1 and the whole vocabulary, where the mixture is exact."""
        return decoding if self.candidates == 1 else replace(decoding, temperature=1.0, top_p=1.0)

    def settings(self, decoding: Decoding) -> Mapping[str, Any]:
        """The decoding with the dial's own settings."""
        return {**asdict(decoding), "dial": {"share": self.share, "candidates": self.candidates}}

    def render(self, prompt: Prompt) -> str:
        """The prompt rendered by the chat template."""
        return self.low.render(prompt)

    def plan(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[SampleRequest]]:
        """Batches as `LocalGenerator` plans them."""
        return self.low.plan(requests, decoding)

    def generate(self, batch: Sequence[SampleRequest], decoding: Decoding) -> list[Completion]:
        """One answer to every request.

        Raises:
            BfpoError: if the decoding is not that of the exact form, at temperature 1 without a nucleus.
        """
        if self.candidates > 1 and (decoding.temperature, decoding.top_p) != (1.0, 1.0):
            raise BfpoError(
                "the dial's exact form samples at temperature 1 and top_p 1; leave both out, or mix token by token "
                "with one candidate"
            )
        prompts = [self.low.encode(request.prompt) for request in batch]
        return in_rooms(batch, prompts, context_length(self.low.model.config), decoding, self._sample)

    def drift(self, prompts: Sequence[Prompt], decoding: Decoding, samples: int = 64) -> float:
        """Total variation distance, in [0, 1], of the mixture token by token from the exact one, averaged over prompts.

        With q the former, it is E_q |W/E_q W - 1|/2, where W = Z_1 ... Z_n is exact but for cut answers.

        Args:
            prompts: the prompts.
            decoding: length and batch size of the answers; temperature and nucleus are those of the exact form.
            samples: number of answers to each prompt; the estimate is too high by the order of 1/sqrt(samples).
        """
        exact = replace(decoding, temperature=1.0, top_p=1.0, samples=samples)
        requests = sample_requests({str(number): prompt for number, prompt in enumerate(prompts)}, exact)
        log_weights: dict[str, list[float]] = {str(number): [] for number in range(len(prompts))}
        for batch in self.plan(requests, exact):
            encoded = [self.low.encode(request.prompt) for request in batch]
            _, found = self._candidates(batch, encoded, exact, 0)
            for request, log_weight in zip(batch, found, strict=True):
                log_weights[request.key].append(log_weight)
        shares = [softmax(own) * len(own) for own in log_weights.values()]
        return float(np.mean([np.abs(share - 1).mean() / 2 for share in shares]))

    def _sample(
        self, batch: Sequence[SampleRequest], prompts: Sequence[list[int]], decoding: Decoding
    ) -> list[Completion]:
        chances = [np.random.default_rng((request.seed, 1)) for request in batch]
        tried: list[list[tuple[Completion, float]]] = [[] for _ in batch]
        accepted: dict[int, Completion] = {}
        for attempt in range(self.candidates):
            rows = [row for row in range(len(batch)) if row not in accepted]
            if not rows:
                break
            answers = self._candidates([batch[row] for row in rows], [prompts[row] for row in rows], decoding, attempt)
            for row, answer, log_weight in zip(rows, *answers, strict=True):
                tried[row].append((answer, log_weight))
                if self.candidates == 1 or chances[row].random() < math.exp(log_weight):
                    accepted[row] = answer
        self.counts["answers"] += len(batch)
        self.counts["candidates"] += sum(map(len, tried))
        self.counts["drawn by weight"] += len(batch) - len(accepted)
        return [accepted.get(row) or _drawn(tried[row], chances[row]) for row in range(len(batch))]

    def _candidates(
        self, batch: Sequence[SampleRequest], prompts: Sequence[list[int]], decoding: Decoding, attempt: int
    ) -> tuple[list[Completion], list[float]]:
        """An answer of the mixture token by token to every request, and log(Z_1 ... Z_n) of each."""
        model, tokenizer = self.low.model, self.low.tokenizer
        mixture = _Mixture(
            self.high.model, self.share, end_tokens(model.generation_config, tokenizer), list(map(len, prompts))
        )
        seeds = [(request.seed, 2, attempt) for request in batch]
        with torch.inference_mode():
            answers = sample_answers(model, tokenizer, seeds, prompts, decoding, [mixture])
        return answers, mixture.log_normalizers.tolist()


def _drawn(tried: Sequence[tuple[Completion, float]], chance: np.random.Generator) -> Completion:
    """One of the candidates, by weight."""
    return tried[chance.choice(len(tried), p=softmax([log_weight for _, log_weight in tried]))][0]


class _Mixture(LogitsProcessor):
    """Mixes the logits of the model that generates with those of another, which reads the same tokens."""

    def __init__(self, other: PreTrainedModel, share: float, ends: Sequence[int], lengths: Sequence[int]) -> None:
        self._other, self._share, self._lengths = other, share, lengths
        self._ends = torch.tensor(list(ends), device=other.device, dtype=torch.long)
        self._cache: Any = None
        self._mask: Tensor | None = None
        self._is_over = torch.zeros(len(lengths), dtype=torch.bool, device=other.device)
        # [R] sum of log Z over each answer's tokens so far, its end token included.
        self.log_normalizers = torch.zeros(len(lengths), dtype=torch.float64, device=other.device)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """[R, V] log-probabilities of the mixture's next token."""
        if self._mask is None:
            width = input_ids.shape[1]
            self._mask = torch.tensor(
                [[0] * (width - size) + [1] * size for size in self._lengths], device=scores.device
            )
            ids = input_ids
        else:
            ids = input_ids[:, -1:]
            self._mask = torch.cat([self._mask, torch.ones_like(ids)], dim=1)
            self._is_over |= torch.isin(ids[:, 0], self._ends)
        places = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self._other(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=places,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = output.past_key_values
        ours, theirs = (logits.float().log_softmax(-1) for logits in (scores, output.logits[:, -1]))
        mixed = (1 - self._share) * ours + self._share * theirs
        log_normalizer = mixed.logsumexp(-1)
        self.log_normalizers += torch.where(self._is_over, 0.0, log_normalizer.double())
        return mixed - log_normalizer[:, None]
