"""`EndpointGenerator`: answers from an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bfpo.config import validated
from bfpo.endpoints import CompletionRequest, Endpoint, EndpointConfig, Failure
from bfpo.errors import RunError
from bfpo.generation.protocol import Completion, Decoding, Generator, ModelIdentity, SampleRequest, as_messages


@dataclass(frozen=True)
class EndpointGenerator(Generator):
    """A server that answers prompts, each with its own seed if the server supports seeds.

    The server applies the chat template, so records contain prompts as they were sent.

    Attributes:
        endpoint: the server.
        system_prompt: system prompt before every prompt, if any.
    """

    endpoint: Endpoint
    system_prompt: str | None = None

    @classmethod
    def connect(cls, url: str, model: str, *, system_prompt: str | None = None, **limits: Any) -> EndpointGenerator:
        """A generator for one model of a server.

        Args:
            url: base address of the server, up to and including ``/v1``.
            model: the server's name for the model.
            system_prompt: system prompt before every prompt, if any.
            limits: other fields of `bfpo.endpoints.ServerConfig`, such as ``api_key_env`` or ``concurrency``.

        Raises:
            BfpoError: if the address or a limit is wrong.
        """
        config = validated(EndpointConfig, {"url": url, "model": model, **limits}, f"endpoint {url}")
        return cls(Endpoint(config), system_prompt)

    @property
    def identity(self) -> ModelIdentity:
        """Address and model name; a server's weights are unknown."""
        config = self.endpoint.config
        return ModelIdentity(f"{config.url} {config.model}", system_prompt=self.system_prompt)

    def generate(self, batch: Sequence[SampleRequest], decoding: Decoding) -> list[Completion]:
        """One answer to every request, in order.

        Raises:
            RunError: if a request failed on every attempt.
        """
        bodies = [
            CompletionRequest(
                prompt=tuple(as_messages(request.prompt, self.system_prompt)),
                max_tokens=decoding.max_new_tokens,
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                # Servers store seeds in 32 or 64 bits, some of them signed.
                seed=request.seed % 2**31,
            )
            for request in batch
        ]
        completions = []
        for request, reply in zip(batch, self.endpoint.complete(bodies), strict=True):
            if isinstance(reply, Failure):
                raise RunError(
                    f"the server gave no answer to {request.key} ({reply.reason}, {reply.attempts} attempts): "
                    "fix the server and rerun; the run resumes from the last complete batch"
                )
            # A lone surrogate is legal in JSON, but can't be written as UTF-8.
            text = reply.text.encode("utf-8", "replace").decode("utf-8")
            completions.append(Completion(text.strip(), reply.truncated))
        return completions
