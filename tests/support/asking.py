"""Requests to the mock server, and an endpoint that retries without long waits."""

from __future__ import annotations

from typing import Any

from bfpo.endpoints import CompletionRequest, EndpointConfig
from support.mock_server import Server, completion


def ask(text: str, **options: Any) -> CompletionRequest:
    """A request with one message."""
    return CompletionRequest(({"role": "user", "content": text},), **options)


def said(body: dict[str, Any]) -> str:
    """The last message of a request."""
    return body["messages"][-1]["content"]


def echo(body: dict[str, Any], attempt: int) -> tuple[int, dict[str, str], bytes]:
    """A reply that repeats the last message."""
    return 200, {}, completion(f"re: {said(body)}")


def config(server: Server, **options: Any) -> EndpointConfig:
    """Settings for a server, with waits of milliseconds."""
    settings: dict[str, Any] = {"backoff": 0.001, "longest_wait": 0.01} | options
    return EndpointConfig(url=server.url, model="m", **settings)
