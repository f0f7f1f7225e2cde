"""Answers from an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bfpo.errors import RunError
from bfpo.generation.protocol import Asked, Completion, Decoding, Text

if TYPE_CHECKING:
    from bfpo.endpoints import Endpoint


@dataclass(frozen=True)
class EndpointGenerator:
    """A server that answers prompts, each with its own seed where the server heeds one.

    The server owns the chat template, so a prompt is recorded as it was sent.

    Attributes:
        endpoint: the server.
        decoding: how to sample.
        system_prompt: what stands before every prompt, if anything.
    """

    endpoint: Endpoint
    decoding: Decoding
    system_prompt: str | None = None

    def render(self, prompt: Text) -> str:
        """The messages that are sent, a line each."""
        return "\n".join(f"{message['role']}: {message['content']}" for message in self._messages(prompt))

    def plan(self, asked: Sequence[Asked]) -> list[list[Asked]]:
        """Batches of neighbours: what a kill may lose."""
        size = self.decoding.batch_size
        return [list(asked[start : start + size]) for start in range(0, len(asked), size)]

    def answer(self, batch: Sequence[Asked]) -> list[Completion]:
        """Answers to one planned batch.

        Raises:
            RunError: if the server gave no answer to one of them after all tries.
        """
        from bfpo.endpoints import Failure, Request

        requests = [
            Request(
                prompt=tuple(self._messages(one.prompt)),
                max_tokens=self.decoding.max_new_tokens,
                temperature=self.decoding.temperature,
                top_p=self.decoding.top_p,
                # Servers hold seeds in 32 or 64 bits, some of them signed.
                seed=one.seed(self.decoding.seed) % 2**31,
            )
            for one in batch
        ]
        completions = []
        for one, reply in zip(batch, self.endpoint.complete(requests), strict=True):
            if isinstance(reply, Failure):
                raise RunError(
                    f"the server gave no answer to {one.key} ({reply.reason}, {reply.attempts} tries): "
                    "mend that and run again, which goes on from the last whole batch"
                )
            # A lone surrogate is legal JSON but no text that a file can hold.
            text = reply.text.encode("utf-8", "replace").decode("utf-8")
            completions.append(Completion(text.strip(), reply.truncated))
        return completions

    def _messages(self, prompt: Text) -> list[dict[str, str]]:
        system = [] if self.system_prompt is None else [{"role": "system", "content": self.system_prompt}]
        return [*system, *([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt)]
