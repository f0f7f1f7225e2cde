"""`EndpointGenerator`: answers from an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bfpo.endpoints import CompletionRequest, Endpoint, Failure, Reply, Usage, endpoint_config
from bfpo.generation.protocol import Completion, Decoding, Generator, ModelIdentity, SampleRequest, as_messages

# Parameters of requests that change how answers are sampled, and their names in a run's decoding.
_SAMPLING = {
    "temperature": "temperature", "top_p": "top_p", "seed": "seed", "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens", "top_k": "top_k", "min_p": "min_p", "typical_p": "typical_p",
    "repetition_penalty": "repetition_penalty", "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty", "logit_bias": "logit_bias", "stop": "stop", "min_tokens": "min_tokens",
}  # fmt: skip


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
            url: base address of the server, up to and including ``/v1``, or a YAML file with its settings.
            model: the server's name for the model.
            system_prompt: system prompt before every prompt, if any.
            limits: other fields of `bfpo.endpoints.ServerConfig`, such as ``api_key_env`` or ``concurrency``.

        Raises:
            BfpoError: if the address or a limit is wrong.
        """
        return cls(Endpoint(endpoint_config(url, model, **limits)), system_prompt)

    @property
    def identity(self) -> ModelIdentity:
        """Address and model name; a server's weights are unknown, so its name of the model stands for them."""
        config = self.endpoint.config
        return ModelIdentity(
            f"{config.url} {config.model}", system_prompt=self.system_prompt, extra_body=config.extra_body or None
        )

    def generate(self, batch: Sequence[SampleRequest], decoding: Decoding) -> list[Completion]:
        """One answer to every request, in order; a request that the server doesn't answer has a ``failure``.

        Raises:
            RunError: if the server can't be reached, or breaks down.
        """
        return list(self.stream(batch, decoding))

    def stream(self, requests: Iterable[SampleRequest], decoding: Decoding) -> Iterator[Completion]:
        """The same for any number of requests, which are sent while earlier answers are waited for or judged."""
        return map(_completion, self.endpoint.complete(self._body(request, decoding) for request in requests))

    def _body(self, request: SampleRequest, decoding: Decoding) -> CompletionRequest:
        return CompletionRequest(
            prompt=tuple(as_messages(request.prompt, self.system_prompt)),
            max_tokens=decoding.max_new_tokens,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            # Servers store seeds in 32 or 64 bits, some of them signed.
            seed=request.seed % 2**31,
        )

    def settings(self, decoding: Decoding) -> Mapping[str, Any]:
        """The decoding as requests have it: ``extra_body`` may change a setting, add one, or leave one out (None)."""
        extra = self.endpoint.config.extra_body
        return asdict(decoding) | {own: extra[name] for name, own in _SAMPLING.items() if name in extra}

    def cost(self, usage: Mapping[str, int]) -> float | None:
        """Their price, if the server's settings have one."""
        price = self.endpoint.config.price
        return price and price.of(Usage(usage.get("prompt", 0), usage.get("completion", 0)))


def _completion(reply: Reply | Failure) -> Completion:
    if isinstance(reply, Failure):
        return Completion("", False, failure=reply.reason)
    usage = reply.usage
    # Most servers count the thinking among the tokens of the completion; some count it apart.
    thought = usage.reasoning if usage and usage.reasoning <= usage.completion else 0
    return Completion(
        reply.text.strip(),
        reply.truncated,
        tokens=usage.completion - thought if usage and usage.completion else None,
        thinking=reply.thinking,
        refusal=reply.refusal,
        finish_reason=reply.finish_reason,
        usage=asdict(usage) if usage else None,
    )
