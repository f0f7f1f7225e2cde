"""Prompts that are both trained on and evaluated on: the same after normalisation, or sharing long runs of words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bfpo.preferences.reading import read_rows
from bfpo.preferences.schema import PreferenceDataError, Problem

# Words of a run. Shorter prompts can only be the same; GPT-3 (arXiv 2005.14165, appendix C) took 8 to 13.
WORDS = 8
# Of an evaluation prompt's runs, the share that training prompts must hold for it to count as known: 70 % of runs of
# eight, as for PaLM (Chowdhery et al. 2022).
SHARE = 0.7


@dataclass(frozen=True)
class Overlap:
    """What a source shares with a set of evaluation prompts.

    Attributes:
        evaluation: name of the set.
        prompts: prompts of the set.
        same: of them, those that are a training prompt up to case, punctuation and white space.
        similar: further ones, at least 70 % of whose runs of eight words are in training prompts.
        example: the first of either.
    """

    evaluation: str
    prompts: int
    same: int
    similar: int
    example: str


def find_overlap(training: Iterable[str], evaluation: Mapping[str, Sequence[str]]) -> list[Overlap]:
    """What training prompts share with each set of evaluation prompts; sets with no overlap are left out."""
    words = {name: [normalised(prompt) for prompt in prompts] for name, prompts in evaluation.items()}
    whole = {prompt for prompts in words.values() for prompt in prompts}
    runs = {run for prompts in words.values() for prompt in prompts for run in _runs(prompt)}
    # Most words of training begin no run that is looked for: that is seen before a run is made.
    beginnings = {run[0] for run in runs}
    seen: set[tuple[str, ...]] = set()
    seen_runs: set[tuple[str, ...]] = set()
    for text in training:
        prompt = normalised(text)
        if prompt in whole:
            seen.add(prompt)
        seen_runs.update(run for run in _runs(prompt, beginnings) if run in runs)
    found = []
    for name, prompts in words.items():
        same = [at for at, prompt in enumerate(prompts) if prompt in seen]
        similar = [at for at, prompt in enumerate(prompts) if prompt not in seen and _is_known(prompt, seen_runs)]
        if same or similar:
            example = evaluation[name][min(same + similar)]
            found.append(Overlap(name, len(prompts), len(same), len(similar), example))
    return found


def normalised(text: str) -> tuple[str, ...]:
    """The words of a text, without case, punctuation, white space and forms of letters (NFKC)."""
    return tuple(re.findall(r"\w+(?:['’]\w+)*", unicodedata.normalize("NFKC", text).casefold()))


def prompt_text(prompt: Any) -> str:
    """A prompt as one text: a string, or the contents of the user's messages."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt if message["role"] == "user")


def load_prompts(path: str) -> list[str]:
    """Evaluation prompts from a text file, one a line, or from the column ``prompt`` of a file of rows.

    Raises:
        PreferenceDataError: if the file can't be read, or rows have no prompt.
    """
    if Path(path).suffix == ".txt" and Path(path).is_file():
        return [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = read_rows(path, "train", None)
    problems = [
        Problem(number, "prompt", "it is missing", "write every evaluation prompt into the column 'prompt'")
        for number, row in rows
        if not isinstance(row.get("prompt"), str | list)
    ]
    if problems:
        raise PreferenceDataError(path, problems)
    return [prompt_text(row["prompt"]) for _, row in rows]


def _runs(words: tuple[str, ...], beginnings: Set[str] | None = None) -> set[tuple[str, ...]]:
    """The runs of a text, or those that begin with certain words."""
    places = range(len(words) - WORDS + 1)
    return {words[at : at + WORDS] for at in places if beginnings is None or words[at] in beginnings}


def _is_known(words: tuple[str, ...], seen: set[tuple[str, ...]]) -> bool:
    runs = _runs(words)
    return bool(runs) and len(runs & seen) >= SHARE * len(runs)
