"""Requests to an OpenAI-compatible server, and what comes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CompletionRequest:
    """A request for one completion.

    Attributes:
        prompt: text for a plain completion, sent as it is; messages (``{"role", "content"}``) for a chat completion.
        max_tokens: largest number of tokens in the completion.
        temperature: temperature of the softmax; 0 is greedy.
        top_p: probability mass of the nucleus that tokens are drawn from; None leaves it to the server.
        seed: random seed for sampling, if the server supports one.
        top_logprobs: number of alternatives requested at every token.
    """

    prompt: str | tuple[Mapping[str, str], ...]
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    top_logprobs: int = 0

    @property
    def path(self) -> str:
        """Path of the request below ``/v1``."""
        return "/completions" if isinstance(self.prompt, str) else "/chat/completions"

    def body(self, model: str, token_limit: str = "max_tokens") -> dict[str, Any]:
        """The JSON body, see https://platform.openai.com/docs/api-reference/chat/create and .../completions/create.

        ``token_limit`` is the name of the parameter that limits the tokens of a chat completion.
        """
        body: dict[str, Any] = {"model": model, "temperature": self.temperature}
        if isinstance(self.prompt, str):
            body |= {"prompt": self.prompt, "max_tokens": self.max_tokens}
            if self.top_logprobs:
                body["logprobs"] = self.top_logprobs
        else:
            body |= {"messages": [dict(message) for message in self.prompt], token_limit: self.max_tokens}
            if self.top_logprobs:
                body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        # Sent even at 1: servers take other values from a model's generation_config.json.
        if self.top_p is not None:
            body["top_p"] = self.top_p
        if self.seed is not None:
            body["seed"] = self.seed
        return body


@dataclass(frozen=True)
class TokenLogprobs:
    """One token of a completion: its text, and the log-probabilities in nats of the likeliest tokens at its place."""

    text: str
    top: Mapping[str, float]


@dataclass(frozen=True)
class Usage:
    """The server's count of tokens.

    Attributes:
        prompt: tokens of the prompt.
        completion: tokens of the output, thinking included.
        reasoning: tokens of the thinking, as far as the server reports them.
    """

    prompt: int = 0
    completion: int = 0
    reasoning: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Tokens of both."""
        return Usage(self.prompt + other.prompt, self.completion + other.completion, self.reasoning + other.reasoning)


@dataclass(frozen=True)
class Reply:
    """A completion from the server, or the provider's refusal to give one.

    Attributes:
        text: the completion without its thinking; "" if the model wrote nothing.
        finish_reason: the server's reason for its end: "stop", "length", "content_filter", ...
        tokens: the tokens of ``text``, if log-probabilities were requested and returned.
        thinking: the model's thinking before the completion.
        refusal: the words in which the provider, not the model, declined; "" if it didn't.
        usage: the server's count of tokens, if it gave one.
    """

    text: str
    finish_reason: str
    tokens: tuple[TokenLogprobs, ...] = ()
    thinking: str = ""
    refusal: str = ""
    usage: Usage | None = None

    @property
    def truncated(self) -> bool:
        """Whether it was cut, at the token limit or by a filter."""
        return self.finish_reason == "length" or self.filtered

    @property
    def filtered(self) -> bool:
        """Whether the provider's filter ended it."""
        return self.finish_reason in FILTERED

    @property
    def only_thinking(self) -> bool:
        """Whether the output ended before the model stopped thinking."""
        return bool(self.thinking) and not self.text.strip() and not self.refusal


# finish_reason of a completion that a provider's filter ended (OpenAI, Azure; Anthropic's compatible interface).
FILTERED = ("content_filter", "refusal")


@dataclass(frozen=True)
class Failure:
    """A request without a reply.

    Attributes:
        reason: the server's words, or what went wrong; never contains the key.
        attempts: number of attempts; 0 if the server was no longer asked, because it failed all requests before.
        permanent: whether the server refused the request itself, so that another attempt would fail too.
        others_answered: whether the server replied to another request since the first attempt.
    """

    reason: str
    attempts: int
    permanent: bool = False
    others_answered: bool = field(default=False, compare=False)
