"""A client for OpenAI-compatible servers: many requests in flight, replies in order, failures as values.

This room doesn't know what replies are for; sampling and judging build on it.
"""

from bfpo.endpoints.client import Endpoint
from bfpo.endpoints.messages import CompletionRequest, EndpointConfig, Failure, Reply, ServerConfig, TokenLogprobs

__all__ = ["CompletionRequest", "Endpoint", "EndpointConfig", "Failure", "Reply", "ServerConfig", "TokenLogprobs"]
