"""Requests and replies of an OpenAI-compatible server, and the configuration of an endpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from bfpo.config import Closed
from bfpo.errors import BfpoError


class ServerConfig(Closed):
    """Address and limits of a server.

    Attributes:
        url: base address, up to and including ``/v1``.
        api_key_env: environment variable that holds the key; the key itself is never part of a configuration.
        concurrency: largest number of requests in flight.
        timeout: seconds allowed for one whole reply.
        attempts: number of attempts before a request counts as failed.
        backoff: seconds before the second attempt; doubled for every further one, with jitter.
        longest_wait: longest wait between two attempts in seconds, even if the server's Retry-After is longer.
        requests_per_minute: rate limit; None for none.
    """

    url: str
    api_key_env: str | None = None
    concurrency: int = Field(default=32, ge=1, le=4096)
    timeout: float = Field(default=120.0, gt=0)
    attempts: int = Field(default=6, ge=1)
    backoff: float = Field(default=1.0, ge=0)
    longest_wait: float = Field(default=60.0, ge=0)
    requests_per_minute: float | None = Field(default=None, gt=0)

    @field_validator("url")
    @classmethod
    def _plain_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an address; write it as http://host:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("the address holds a user, a password or a query; name the key's variable in api_key_env")
        return url.rstrip("/")

    def api_key(self) -> str | None:
        """The key from the environment; None if ``api_key_env`` is not set.

        Raises:
            BfpoError: if the environment variable is missing or empty.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise BfpoError(f"the key of {self.url} is missing: set the environment variable {self.api_key_env}")
        return key


class EndpointConfig(ServerConfig):
    """A server and its name of the model."""

    model: str


@dataclass(frozen=True)
class CompletionRequest:
    """A request for one completion.

    Attributes:
        prompt: text for a plain completion, sent as it is; messages (``{"role", "content"}``) for a chat completion.
        max_tokens: largest number of tokens in the completion.
        temperature: temperature of the softmax; 0 is greedy.
        top_p: probability mass of the nucleus that tokens are drawn from.
        stop: texts at which the completion ends.
        seed: random seed for sampling, if the server supports one.
        top_logprobs: number of alternatives requested at every token.
    """

    prompt: str | tuple[Mapping[str, str], ...]
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    top_logprobs: int = 0

    @property
    def path(self) -> str:
        """Path of the request below ``/v1``."""
        return "/completions" if isinstance(self.prompt, str) else "/chat/completions"

    def body(self, model: str) -> dict[str, Any]:
        """The JSON body, see https://platform.openai.com/docs/api-reference/chat/create and .../completions/create."""
        body: dict[str, Any] = {"model": model, "max_tokens": self.max_tokens, "temperature": self.temperature}
        if isinstance(self.prompt, str):
            body["prompt"] = self.prompt
            if self.top_logprobs:
                body["logprobs"] = self.top_logprobs
        else:
            body["messages"] = [dict(message) for message in self.prompt]
            if self.top_logprobs:
                body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        if self.top_p != 1.0:
            body["top_p"] = self.top_p
        if self.stop:
            body["stop"] = list(self.stop)
        if self.seed is not None:
            body["seed"] = self.seed
        return body


@dataclass(frozen=True)
class TokenLogprobs:
    """One token of a completion: its text, and the log-probabilities in nats of the likeliest tokens at its place."""

    text: str
    top: Mapping[str, float]


@dataclass(frozen=True)
class Reply:
    """A completion from the server.

    Attributes:
        text: the completion; "" if the model wrote nothing.
        finish_reason: the server's reason for its end: "stop", "length", "content_filter", ...
        tokens: the tokens, if log-probabilities were requested and returned.
        model: the server's name of the model.
        attempts: number of attempts.
    """

    text: str
    finish_reason: str
    tokens: tuple[TokenLogprobs, ...] = ()
    model: str = ""
    attempts: int = 1

    @property
    def truncated(self) -> bool:
        """Whether it was cut at ``max_tokens``."""
        return self.finish_reason == "length"


@dataclass(frozen=True)
class Failure:
    """A request without a reply, and the reason, which never contains the key."""

    reason: str
    attempts: int


class MalformedReplyError(ValueError):
    """A reply with status 200 that doesn't follow the protocol."""


def parse_reply(body: Any) -> Reply:
    """The completion in a server's JSON.

    Raises:
        MalformedReplyError: if there is no completion where the protocol puts it.
    """
    try:
        choice = body["choices"][0]
        if "message" in choice:
            text = choice["message"].get("content") or ""
            logprobs = (choice.get("logprobs") or {}).get("content") or ()
            tokens = tuple(
                TokenLogprobs(token["token"], {top["token"]: top["logprob"] for top in token["top_logprobs"]})
                for token in logprobs
            )
        else:
            text = choice["text"]
            logprobs = choice.get("logprobs") or {}
            pairs = zip(logprobs.get("tokens", ()), logprobs.get("top_logprobs") or (), strict=True)
            tokens = tuple(TokenLogprobs(token, dict(top or {})) for token, top in pairs)
        if not isinstance(text, str):
            raise MalformedReplyError(f"its text is a {type(text).__name__}")
        return Reply(text, str(choice.get("finish_reason") or ""), tokens, str(body.get("model") or ""))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise MalformedReplyError(f"it has no completion ({type(error).__name__}: {error})") from error
