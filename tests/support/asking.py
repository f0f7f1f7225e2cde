"""Requests to the mock server, and an endpoint that retries without long waits."""

from bfpo.endpoints import CompletionRequest, EndpointConfig
from support.mock_server import completion


def ask(text, **options):
    return CompletionRequest(({"role": "user", "content": text},), **options)


def said(body):
    return body["messages"][-1]["content"]


def echo(body, attempt):
    return 200, {}, completion(f"re: {said(body)}")


def config(server, **options):
    return EndpointConfig(url=server.url, model="m", **({"backoff": 0.001, "longest_wait": 0.01} | options))
