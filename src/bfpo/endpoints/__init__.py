"""A client for OpenAI-compatible servers: concurrent requests, replies in order, failures as values.

Sampling and judging build on this room.
"""

from bfpo.endpoints.client import Endpoint
from bfpo.endpoints.config import EndpointConfig, Price, ServerConfig, endpoint_config
from bfpo.endpoints.messages import CompletionRequest, Failure, Reply, TokenLogprobs, Usage

__all__ = [
    "CompletionRequest",
    "Endpoint",
    "EndpointConfig",
    "Failure",
    "Price",
    "Reply",
    "ServerConfig",
    "TokenLogprobs",
    "Usage",
    "endpoint_config",
]
