"""Pairs of the development mix, split by prompt, with labels that are clean, err, or disagree with safety."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from bfpo.errors import BfpoError
from bfpo.preferences.label_columns import JUDGE, PEOPLE, RANDOM

Row = dict[str, Any]
State = Literal["clean", "flips", "conflict"]

# Files of the mix, by the kind of their pairs: one answer safe; a benign request near the edge; help alone.
FILES: Mapping[str, str] = {
    "mixed": "safety_pairs_clean.jsonl.gz",
    "edge": "edge_pairs.jsonl.gz",
    "helpful": "helpful_pairs.jsonl.gz",
}
KINDS = tuple(FILES)
# Pairs of each kind to hold out.
HELD_OUT: Mapping[str, Mapping[str, int]] = {
    "test": {"mixed": 300, "edge": 300, "helpful": 300},
    "validation": {"mixed": 120, "edge": 60, "helpful": 120},
}
MOST_TOKENS = 1024
FLIPPED, CONFLICTING, PEOPLES_SHARE = 0.3, 0.9, 0.1


@dataclass(frozen=True)
class Mix:
    """Pairs by part and kind, and how many were left out.

    Attributes:
        pairs: rows in canonical columns; ``chosen`` is the safe, the complying or the more helpful answer.
        too_long: number of pairs of more than `MOST_TOKENS` tokens.
        repeated: number of training pairs whose prompt is in a held-out part of another kind.
    """

    pairs: Mapping[str, Mapping[str, Sequence[Row]]]
    too_long: int
    repeated: int


def load_mix(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Mix:
    """Read the mix and split it by prompt, in the same way for every run.

    Raises:
        BfpoError: if a file of the mix is missing.
    """
    pairs: dict[str, dict[str, list[Row]]] = {"train": {}, "validation": {}, "test": {}}
    too_long = 0
    for kind in KINDS:
        rows = _read(folder / FILES[kind])
        kept = [row for row in rows if _tokens(row, tokenizer) <= MOST_TOKENS]
        too_long += len(rows) - len(kept)
        for part, own in _split(kept, kind).items():
            pairs[part][kind] = own
    held_out = {row["prompt"] for part in HELD_OUT for rows in pairs[part].values() for row in rows}
    training = {kind: [row for row in rows if row["prompt"] not in held_out] for kind, rows in pairs["train"].items()}
    repeated = sum(len(rows) - len(training[kind]) for kind, rows in pairs["train"].items())
    return Mix(pairs | {"train": training}, too_long, repeated)


def _read(path: Path) -> list[Row]:
    if not path.exists():
        raise BfpoError(f"{path}: no such file; name the folder of the development mix with --data")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _tokens(row: Row, tokenizer: PreTrainedTokenizerBase) -> int:
    return sum(len(tokenizer.encode(row[name])) for name in ("prompt", "chosen", "rejected"))


def _split(rows: Sequence[Row], kind: str) -> dict[str, list[Row]]:
    prompts = sorted({row["prompt"] for row in rows})
    random.Random(f"split {kind}").shuffle(prompts)
    by_prompt: dict[str, list[Row]] = {prompt: [] for prompt in prompts}
    for row in rows:
        by_prompt[row["prompt"]].append(row)
    found: dict[str, list[Row]] = {"test": [], "validation": [], "train": []}
    for own in by_prompt.values():
        part = next((part for part, counts in HELD_OUT.items() if len(found[part]) < counts[kind]), "train")
        found[part] += own
    return found


def labeled(rows: Sequence[Row], kind: str, state: State, seed: int) -> list[Row]:
    """Training rows of a kind with a state's labels.

    - "clean": as they came; the order of a mixed pair is unknown (1/2).
    - "flips": a judge's flags, each wrong with probability .3; people label both answers of a random tenth.
    - "conflict": the same, and in .9 of the mixed pairs the unsafe answer is the more helpful one.

    Pairs of the buffer keep their labels: nothing reads their flags.
    """
    if state == "clean" or kind == "helpful":
        return [*rows]
    chance = random.Random(f"{state} {kind} {seed}")
    asked = set(chance.sample(range(len(rows)), round(PEOPLES_SHARE * len(rows))))
    found = []
    for at, row in enumerate(rows):
        if state == "conflict" and kind == "mixed":
            row = _conflicting(row) if chance.random() < CONFLICTING else row | {"chosen_is_better": 1.0}
        found.append(_judged(row, chance, by_people=at in asked))
    return found


def _conflicting(row: Row) -> Row:
    """The pair with the unsafe answer first, as the more helpful one."""
    return row | {
        "chosen": row["rejected"],
        "rejected": row["chosen"],
        "chosen_is_safe": row["rejected_is_safe"],
        "rejected_is_safe": row["chosen_is_safe"],
        "chosen_is_better": 1.0,
    }


def _judged(row: Row, chance: random.Random, *, by_people: bool) -> Row:
    sources: Row = {"order": PEOPLE}
    words: Row = {}
    flags: Row = {}
    for name in ("chosen", "rejected"):
        true = row[f"{name}_is_safe"]
        judged = 1.0 - true if chance.random() < FLIPPED else true
        flags[f"{name}_is_safe"] = true if by_people else judged
        sources[name] = RANDOM if by_people else JUDGE
        words[name] = {"verdict": judged, "probability": None}
    return row | flags | {"labelled_by": sources, "judged_as": words}
