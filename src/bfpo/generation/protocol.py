"""Protocols of generators, which answer prompts or score given texts, and their data types. Doesn't import torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from bfpo.errors import BfpoError
from bfpo.preferences.messages import rendered

Prompt = str | Sequence[dict[str, str]]


@dataclass(frozen=True)
class Decoding:
    """Sampling settings.

    Attributes:
        temperature: temperature of the softmax; 0 takes the likeliest token.
        top_p: probability mass of the nucleus that tokens are drawn from.
        samples: number of answers to each prompt.
        max_new_tokens: number of tokens after which an answer is cut.
        seed: random seed of the run, from which every answer's seed is derived.
        batch_size: largest number of answers in a batch.
        max_tokens: largest number of padded tokens (prompts and answers) in a batch; a longer prompt is sampled alone.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (for suite files: an unknown key is an error)

    temperature: float = 0.7
    top_p: float = 0.95
    samples: int = 1
    max_new_tokens: int = 256
    seed: int = 0
    batch_size: int = 256
    max_tokens: int = 32_768

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise BfpoError(f"temperature {self.temperature}: write a number of at least 0")
        if not 0 < self.top_p <= 1:
            raise BfpoError(f"top-p {self.top_p}: write a probability above 0, up to 1")
        for name in ("samples", "max_new_tokens", "batch_size", "max_tokens"):
            if getattr(self, name) < 1:
                raise BfpoError(f"{name} {getattr(self, name)}: write a number of at least 1")

    def without_repeats(self) -> Decoding:
        """The same, with one sample at temperature 0, where all answers to a prompt are the same."""
        return replace(self, samples=1) if self.temperature == 0 else self


@dataclass(frozen=True)
class ModelIdentity:
    """Identity of a generator, recorded in a run's header; a run resumes only under the same identity.

    Attributes:
        path: folder or Hub name of the model, or the address of a server, a space, and its name of the model.
        digest: SHA-256 of weights and configuration; None if unknown, in which case ``path`` identifies the model, but
            for an address in it (see `without_address`).
        chat_template_sha256: SHA-256 of the chat template; None without one.
        system_prompt: system prompt before every prompt, if any.
        extra_body: further parameters of every request to a server.
    """

    path: str | None = None
    digest: str | None = None
    chat_template_sha256: str | None = None
    system_prompt: str | None = None
    extra_body: Mapping[str, Any] | None = None


def without_address(path: str | None) -> str | None:
    """The path of a `ModelIdentity` without a server's address, which is where the model runs and not what it is."""
    address, _, model = (path or "").partition(" ")
    return model if model and address.startswith(("http://", "https://")) else path


@dataclass(frozen=True)
class SampleRequest:
    """A request for one sampled answer.

    Attributes:
        key: unique name of the prompt.
        prompt: the user's text, or a list of messages.
        sample: number of the answer among those to the same prompt, from 0.
        seed: the answer's own random seed, below 2**56; the same in every run with the same `Decoding.seed`.
    """

    key: str
    prompt: Prompt
    sample: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """One sampled answer, or the reason why there is none.

    Attributes:
        text: the answer, without surrounding white space; thinking that is still at its beginning is split off later.
        truncated: whether it was cut before its end.
        tokens: its length without the end token; None if unknown.
        thinking: the model's thinking before the answer, if the generator tells them apart.
        refusal: the words in which the provider of a server, not the model, declined; "" if it didn't.
        failure: why there is no answer; "" if there is one.
        finish_reason: the server's reason for the end.
        usage: the server's counts of "prompt", "completion" and "reasoning" tokens; None if it gave none.
    """

    text: str
    truncated: bool
    tokens: int | None = None
    thinking: str = ""
    refusal: str = ""
    failure: str = ""
    finish_reason: str = ""
    usage: Mapping[str, int] | None = None


def sample_requests(prompts: Mapping[str, Prompt], decoding: Decoding) -> list[SampleRequest]:
    """Requests for ``decoding.samples`` answers to every prompt, given by its key.

    An answer's seed is a hash of the run's seed, the prompt's key and the number of the sample, and of nothing else.
    """

    def seed(key: str, sample: int) -> int:
        digest = hashlib.sha256(repr((decoding.seed, key, sample)).encode()).digest()
        return int.from_bytes(digest[:7], "big")

    return [
        SampleRequest(key, prompt, sample, seed(key, sample))
        for key, prompt in prompts.items()
        for sample in range(decoding.samples)
    ]


def as_messages(prompt: Prompt, system_prompt: str | None = None) -> list[dict[str, str]]:
    """A prompt as chat messages, after the system prompt if there is one."""
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    return [*system, *([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt)]


class Generator(Protocol):
    """Anything that answers prompts. A subclass needs only ``identity`` and ``generate``."""

    @property
    def identity(self) -> ModelIdentity:
        """The model that answers."""
        ...

    @property
    def model_paths(self) -> tuple[str, ...]:
        """Folders or Hub names of the models that answer; by default the identity's path."""
        path = self.identity.path
        return (path,) if path else ()

    def generate(self, batch: Sequence[SampleRequest], decoding: Decoding) -> list[Completion]:
        """One answer to every request of a planned batch, in order; must be deterministic.

        Raises:
            RunError: if no request can be answered; the run stops, and can be resumed from this batch. If only some
                can't, they get a `Completion` with a ``failure``.
        """
        ...

    def plan(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[list[SampleRequest]]:
        """Split requests into batches, deterministically; by default ``decoding.batch_size`` in order.

        A killed run loses at most one batch.
        """
        size = decoding.batch_size
        return [list(requests[start : start + size]) for start in range(0, len(requests), size)]

    def defaults(self, decoding: Decoding) -> Decoding:
        """A suite's decoding as far as this generator can follow it; by default all of it."""
        return decoding

    def settings(self, decoding: Decoding) -> Mapping[str, Any]:
        """The decoding for the run's header; by default all of it."""
        return asdict(decoding)

    def cost(self, usage: Mapping[str, int]) -> float | None:
        """The price of tokens counted as in `Completion.usage`; by default unknown."""
        return None

    def render(self, prompt: Prompt) -> str:
        """The prompt as the model reads it, for the records; by default as `bfpo.preferences.messages.rendered`."""
        return rendered(as_messages(prompt, self.identity.system_prompt))


@runtime_checkable
class StreamingGenerator(Protocol):
    """A generator whose answers depend on nothing but their request, and come one by one, as a server's replies do."""

    def stream(self, requests: Iterable[SampleRequest], decoding: Decoding) -> Iterator[Completion]:
        """One answer to every request, in order; requests are read ahead of the answers.

        Raises:
            RunError: as `Generator.generate`.
        """
        ...


@dataclass(frozen=True)
class ChoiceRequest:
    """A request for the log-likelihoods of K >= 2 given texts.

    Attributes:
        key: unique name of the item.
        prompt: text before every choice, possibly empty; with ``scored`` "prompt", the text after every choice.
        choices: the K texts.
        scored: "choice" for log P(choice | prompt), "prompt" for log P(prompt | choice).
        delimiter: text between the two; left out after a chat template, as lm-eval does.
    """

    key: str
    prompt: str
    choices: tuple[str, ...]
    scored: Literal["choice", "prompt"] = "choice"
    delimiter: str = " "


@dataclass(frozen=True)
class ChoiceLogps:
    """Log-likelihoods of one request's choices.

    Attributes:
        key: key of the request.
        logps: [K] summed log-probability of each scored text, in nats.
        truncated: whether the beginning of a text was cut to fit the model.
    """

    key: str
    logps: tuple[float, ...]
    truncated: bool = False


@runtime_checkable
class LikelihoodScorer(Protocol):
    """A generator that can also score given texts, as likelihood tasks need."""

    def score_choices(
        self, requests: Sequence[ChoiceRequest], done: Collection[str] = frozenset()
    ) -> Iterator[list[ChoiceLogps]]:
        """Yield log-likelihoods batch by batch; the batches depend only on ``requests``.

        Args:
            requests: all requests.
            done: keys that an interrupted run has scored already; fully scored batches are skipped.
        """
        ...
