"""What is asked of a generator and what it gives, whatever samples: a local model or a server. Needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Text = str | Sequence[dict[str, str]]


@dataclass(frozen=True)
class Decoding:
    """How answers are sampled.

    Attributes:
        temperature: of the softmax; 0 takes the likeliest token.
        top_p: share of the probability that is sampled from.
        samples: answers to each prompt.
        max_new_tokens: tokens after which an answer is cut.
        seed: of all sampling.
        batch_size: answers that are sampled at once, at most.
        max_tokens: padded tokens of prompts and answers that are held at once, at most; a prompt that needs more
            is sampled alone.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    samples: int = 1
    max_new_tokens: int = 256
    seed: int = 0
    batch_size: int = 256
    max_tokens: int = 32_768


@dataclass(frozen=True)
class Asked:
    """One answer that is wanted.

    Attributes:
        key: names the prompt; its seed is made of it.
        prompt: a question, or messages.
        sample: number of the answer, from 0.
    """

    key: str
    prompt: Text
    sample: int = 0

    def seed(self, run_seed: int) -> int:
        """The answer's own seed, below 2**56: of the run's, the prompt's name and the number, and of nothing else."""
        digest = hashlib.sha256(repr((run_seed, self.key, self.sample)).encode()).digest()
        return int.from_bytes(digest[:7], "big")


@dataclass(frozen=True)
class Completion:
    """One sampled answer.

    Attributes:
        text: without white space around it.
        truncated: whether it was cut before its end.
        tokens: its length, the end token not counted; None where nobody says.
    """

    text: str
    truncated: bool
    tokens: int | None = None


class Generator(Protocol):
    """Anything that answers prompts."""

    def render(self, prompt: Text) -> str:
        """The prompt as the model reads it."""
        ...

    def plan(self, asked: Sequence[Asked]) -> list[list[Asked]]:
        """Batches to be answered together, decided from what is asked alone."""
        ...

    def answer(self, batch: Sequence[Asked]) -> list[Completion]:
        """Answers to one planned batch, in its order, the same every time."""
        ...
