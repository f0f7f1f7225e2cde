"""What goes to a server and what comes back, without the server's envelope."""

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
    """Where a server is and how hard it may be asked.

    Attributes:
        url: base address up to and with ``/v1``.
        api_key_env: environment variable that holds the key; the key itself is never part of a configuration.
        concurrency: requests in flight, at most.
        timeout: seconds for one whole reply.
        attempts: tries of one request before it counts as failed.
        backoff: seconds before the second try; doubled with every further one, with jitter.
        longest_wait: seconds between two tries, at most, whatever the server's Retry-After says.
        requests_per_minute: limit on requests sent, None for none.
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
            raise ValueError(f"{url!r} is no address; write it as http://host:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("the address holds a user, a password or a query; name the key's variable in api_key_env")
        return url.rstrip("/")

    def api_key(self) -> str | None:
        """The key from the environment, None if no variable is named.

        Raises:
            BfpoError: if the variable is named and not set.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise BfpoError(f"the key of {self.url} is missing: set the environment variable {self.api_key_env}")
        return key


class EndpointConfig(ServerConfig):
    """A server, and the name under which it serves the model."""

    model: str


@dataclass(frozen=True)
class Request:
    """One thing to be asked.

    Attributes:
        prompt: text for a plain completion, sent as it is; messages (``{"role", "content"}``) for a chat completion.
        max_tokens: of the answer, at most.
        temperature: of the softmax; 0 is greedy.
        top_p: share of the probability that is sampled from.
        stop: texts at which the answer ends.
        seed: of sampling, where the server heeds one.
        top_logprobs: alternatives asked for at every token; 0 asks for none.
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
        """The server's address for it, below ``/v1``."""
        return "/completions" if isinstance(self.prompt, str) else "/chat/completions"

    def body(self, model: str) -> dict[str, Any]:
        """What is sent, after https://platform.openai.com/docs/api-reference/chat/create and .../completions/create."""
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
    """One token of an answer: its text, and the log-probabilities in nats of the likeliest tokens there."""

    text: str
    top: Mapping[str, float]


@dataclass(frozen=True)
class Reply:
    """A complete answer.

    Attributes:
        text: what the model wrote; "" if it wrote nothing.
        finish_reason: the server's word for why it ended: "stop", "length", "content_filter", ...
        tokens: the answer's tokens, if log-probabilities were asked for and given.
        model: what the server says it is.
        attempts: tries that it took.
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
    """A request that got no complete answer, and why; the key is never in the reason."""

    reason: str
    attempts: int


class MalformedReplyError(ValueError):
    """A reply with status 200 that isn't what the protocol promises."""


def parse_reply(body: Any) -> Reply:
    """The answer in a server's JSON.

    Raises:
        MalformedReplyError: if it has no answer where the protocol puts it.
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
        raise MalformedReplyError(f"no answer where the protocol puts it ({type(error).__name__}: {error})") from error
