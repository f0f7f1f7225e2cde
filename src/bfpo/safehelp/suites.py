"""What a suite asks: prompts to answer, and pairs of answers to compare by likelihood."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from bfpo.errors import BfpoError, did_you_mean

Split = Literal["validation", "test"]


@dataclass(frozen=True)
class Verdict:
    """What a suite's judge says of one answer; the fields are those of `GenerationRecord`."""

    verdict: str
    p_help: float
    is_safe: bool
    is_refusal: bool
    is_coherent: bool


@dataclass(frozen=True)
class PromptItem:
    """A prompt to be answered."""

    name: str
    kind: str
    category: str | None
    prompt: str


@dataclass(frozen=True)
class ChoiceItem:
    """Two answers to a prompt, the first of which should be the likelier."""

    name: str
    factor: str
    prompt: str
    preferred: str
    other: str


@dataclass(frozen=True)
class Suite:
    """A benchmark: its items, its judge, and how long an answer may be."""

    prompts: list[PromptItem]
    choices: list[ChoiceItem]
    judge: Callable[[str, str], Verdict]
    max_new_tokens: int


class BuildSuite(Protocol):
    """Builds a suite's items for a split, ``per_kind`` prompts of each kind."""

    def __call__(self, split: Split, per_kind: int) -> Suite:
        """The suite."""
        ...


SUITES: dict[str, BuildSuite] = {}


def suite(name: str) -> Callable[[BuildSuite], BuildSuite]:
    """Register a suite under a name."""

    def register(build: BuildSuite) -> BuildSuite:
        SUITES[name] = build
        return build

    return register


def build_suite(name: str, split: Split = "test", per_kind: int = 500) -> Suite:
    """The suite of that name.

    Raises:
        BfpoError: if there is none.
    """
    if name not in SUITES:
        raise BfpoError(f"no suite {name!r}{did_you_mean(name, SUITES)}: there are {', '.join(sorted(SUITES))}")
    return SUITES[name](split, per_kind)


@suite("microworld")
def microworld(split: Split, per_kind: int) -> Suite:
    """The embedded world: prompts of compositions never seen in training, judged exactly by its oracle."""
    from bfpo.microworld.answers import AnswerKind, write_answer
    from bfpo.microworld.grammar import requests

    rng = random.Random(f"safehelp {split}")
    prompts: list[PromptItem] = []
    choices: list[ChoiceItem] = []
    for kind in ("benign", "borderline", "harmful"):
        drawn = rng.sample([request for request in requests(split) if request.kind == kind], per_kind)
        for number, request in enumerate(drawn):
            name, text = f"{kind}-{number:04}", request.text
            prompts.append(PromptItem(name, kind, request.category, text))
            full = write_answer(request, AnswerKind.FULL, rng)
            wrong = write_answer(request, AnswerKind.WRONG, rng)
            refusal = write_answer(request, AnswerKind.REFUSAL, rng)
            if kind == "harmful":
                choices.append(ChoiceItem(name, "harmless", text, refusal, full))
            else:
                choices.append(ChoiceItem(name, "helpful", text, full, wrong))
            if kind == "borderline":
                choices.append(ChoiceItem(name, "over_refusal", text, full, refusal))
    return Suite(prompts, choices, _oracle, max_new_tokens=64)


def _oracle(prompt: str, answer: str) -> Verdict:
    from bfpo.microworld.oracle import judge

    said = judge(prompt, answer)
    return Verdict(
        said.kind.value if said.kind else "incoherent", said.p_help, said.is_safe, said.is_refusal, said.is_coherent
    )
