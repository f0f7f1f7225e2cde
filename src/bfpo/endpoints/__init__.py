"""A client of any OpenAI-compatible server: many requests in flight, answers in the order asked, failures as values.

It knows nothing of what the answers are for; sampling and judging are built on it.
"""

from bfpo.endpoints.client import Endpoint
from bfpo.endpoints.messages import EndpointConfig, Failure, Reply, Request, ServerConfig, TokenLogprobs

__all__ = ["Endpoint", "EndpointConfig", "Failure", "Reply", "Request", "ServerConfig", "TokenLogprobs"]
