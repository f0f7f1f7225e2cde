"""The configuration of a server: its address, its limits, and what is sent with every request."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from bfpo.config import Closed, read_yaml, validated
from bfpo.endpoints.messages import Usage
from bfpo.errors import BfpoError

# What the client writes itself, or could not read the reply to.
_RESERVED = ("model", "messages", "prompt", "stream", "n", "best_of")


class Price(Closed):
    """Price of a million tokens of the prompt and of the output, thinking included, in any one currency."""

    prompt: float = Field(ge=0, allow_inf_nan=False)
    completion: float = Field(ge=0, allow_inf_nan=False)

    def of(self, usage: Usage) -> float:
        """The price of these tokens."""
        return (self.prompt * usage.prompt + self.completion * usage.completion) / 1e6


class ServerConfig(Closed):
    """Address, limits and price of a server.

    Attributes:
        url: base address, up to and including ``/v1``.
        api_key_env: environment variable that holds the key; the key itself is never part of a configuration.
        concurrency: largest number of requests in flight.
        timeout: seconds allowed for one whole reply.
        attempts: number of attempts before a request counts as failed.
        backoff: seconds before the second attempt; doubled for every further one, with jitter.
        longest_wait: longest backoff in seconds. A server's Retry-After is always respected.
        patience: seconds without any reply, while the server asks to wait (Retry-After), after which a run stops.
        requests_per_minute: rate limit; None for none.
        token_limit: name of the parameter that limits a reply's tokens; "auto" begins with ``max_tokens`` and changes
            to ``max_completion_tokens`` if the server refuses it.
        extra_body: further parameters of every request, such as ``chat_template_kwargs``; null leaves one out.
        price: price of a million tokens; with it, the cost of a run is shown and recorded.
    """

    url: str
    api_key_env: str | None = None
    concurrency: int = Field(default=32, ge=1, le=4096)
    timeout: float = Field(default=120.0, gt=0)
    attempts: int = Field(default=10, ge=1)
    backoff: float = Field(default=1.0, ge=0)
    longest_wait: float = Field(default=60.0, ge=0)
    patience: float = Field(default=900.0, gt=0)
    requests_per_minute: float | None = Field(default=None, gt=0)
    token_limit: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    extra_body: dict[str, Any] = Field(default_factory=dict)
    price: Price | None = None

    @field_validator("url")
    @classmethod
    def _plain_address(cls, url: str) -> str:
        if re.search(r"[\s\x00-\x1f\x7f]", url):
            raise ValueError(f"{url!r} contains a space or a line break; remove it")
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError as error:
            raise ValueError(f"{url!r} is not an address ({error}); write it as http://host:8000/v1") from None
        if not usable:
            raise ValueError(f"{url!r} is not an address; write it as http://host:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                "the address contains a user, a password or a query; name the key's variable in api_key_env"
            )
        return url.rstrip("/")

    @field_validator("extra_body")
    @classmethod
    def _sendable(cls, extra: dict[str, Any]) -> dict[str, Any]:
        reserved = [name for name in _RESERVED if name in extra]
        if reserved:
            raise ValueError(f"{reserved[0]!r} can't be set here; remove it")
        try:
            json.dumps(extra, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"can't be written as JSON ({error}); write texts, numbers, lists and mappings") from None
        return extra

    def api_key(self) -> str | None:
        """The key from the environment; None if ``api_key_env`` is not set.

        Raises:
            BfpoError: if the environment variable is missing or empty, or holds what can't be a key; it isn't shown.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise BfpoError(f"the key of {self.url} is missing: set the environment variable {self.api_key_env}")
        if not re.fullmatch(r"[!-~]+", key):
            raise BfpoError(
                f"the environment variable {self.api_key_env} holds no key: a key has no spaces, line breaks or "
                "characters outside ASCII; set it again"
            )
        return key


class EndpointConfig(ServerConfig):
    """A server and its name of the model."""

    model: str

    def digest_with(self, settings: str) -> str:
        """SHA-256 of the settings of a judge's requests and of the further parameters of all requests."""
        extra = f" {json.dumps(self.extra_body, sort_keys=True)}" if self.extra_body else ""
        return hashlib.sha256(f"{settings}{extra}".encode()).hexdigest()


def endpoint_config(server: str, model: str, **options: Any) -> EndpointConfig:
    """The configuration of a model on a server: an address, or a YAML file with the settings of `ServerConfig`.

    Of further settings, the ``options``, those that are None are ignored.

    Raises:
        BfpoError: if the file can't be read, or a setting is wrong; all wrong settings are named.
    """
    is_file = Path(server).suffix in (".yaml", ".yml")
    settings = read_yaml(Path(server), "the settings of a server") if is_file else {"url": server}
    given = {name: value for name, value in options.items() if value is not None}
    return validated(EndpointConfig, settings | {"model": model} | given, f"endpoint {server}")
