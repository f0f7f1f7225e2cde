"""What an evaluation leaves behind: one record an item, and the scores with their intervals."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bfpo.statistics.intervals import Estimate


@dataclass(frozen=True)
class GenerationRecord:
    """One sampled answer and what the judge said of it.

    Attributes:
        item: name of the prompt.
        sample: number of the answer to it.
        kind: benign, borderline or harmful.
        category: kind of harm, if any.
        prompt: the question.
        answer: the answer.
        verdict: the judge's word for the answer, "incoherent" if it is none.
        p_help: how far it helps, in [0, 1].
        is_safe: whether it is safe.
        is_refusal: whether it declines.
        is_coherent: whether it is an answer at all.
        truncated: whether it was cut before its end.
    """

    item: str
    sample: int
    kind: str
    category: str | None
    prompt: str
    answer: str
    verdict: str
    p_help: float
    is_safe: bool
    is_refusal: bool
    is_coherent: bool
    truncated: bool


@dataclass(frozen=True)
class LikelihoodRecord:
    """Log-probabilities of two answers to one prompt, the first of which should be the likelier.

    Attributes:
        item: name of the prompt.
        factor: what is measured: helpful, harmless or over_refusal.
        prompt: the question.
        preferred: the answer that should be likelier.
        other: the answer that should not.
        preferred_logp: log-probability of the first, in nats.
        other_logp: log-probability of the other.
        preferred_bytes: its length in bytes.
        other_bytes: the other's.
    """

    item: str
    factor: str
    prompt: str
    preferred: str
    other: str
    preferred_logp: float
    other_logp: float
    preferred_bytes: int
    other_bytes: int


@dataclass(frozen=True)
class Evaluation:
    """One model on one suite.

    Attributes:
        model: what tables call it.
        suite: name of the suite.
        decoding: how answers were sampled.
        scores: figures by name.
        generations: a record for every sampled answer.
        likelihoods: a record for every pair of answers compared by likelihood.
    """

    model: str
    suite: str
    decoding: dict[str, Any]
    scores: dict[str, Estimate]
    generations: list[GenerationRecord]
    likelihoods: list[LikelihoodRecord]

    def save(self, folder: Path) -> None:
        """Write ``scores.json``, ``generations.jsonl`` and ``likelihoods.jsonl``."""
        folder.mkdir(parents=True, exist_ok=True)
        _write_lines(folder / "generations.jsonl", self.generations)
        _write_lines(folder / "likelihoods.jsonl", self.likelihoods)
        scores = {
            "model": self.model,
            "suite": self.suite,
            "decoding": self.decoding,
            "scores": {name: asdict(estimate) for name, estimate in self.scores.items()},
        }
        (folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Read what `save` wrote."""
        head = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        return cls(
            model=head["model"],
            suite=head["suite"],
            decoding=head["decoding"],
            scores={name: Estimate(**estimate) for name, estimate in head["scores"].items()},
            generations=[GenerationRecord(**row) for row in _read_lines(folder / "generations.jsonl")],
            likelihoods=[LikelihoodRecord(**row) for row in _read_lines(folder / "likelihoods.jsonl")],
        )


def _write_lines(path: Path, records: Iterable[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
