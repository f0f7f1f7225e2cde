"""Overlap of training and evaluation prompts: equal after normalization, or sharing long n-grams of words."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bfpo.preferences.reading import read_rows, text_lines
from bfpo.preferences.schema import PreferenceDataError, Problem

# Words per n-gram; GPT-3 (arXiv 2005.14165, appendix C) took 8 to 13. Shorter prompts match only as a whole.
WORDS = 8
# Share of an evaluation prompt's n-grams that must occur in training prompts for it to count as similar: 70 % of
# 8-grams, as for PaLM (Chowdhery et al. 2022).
SHARE = 0.7


@dataclass(frozen=True)
class Overlap:
    """Overlap of a source with a set of evaluation prompts.

    Attributes:
        evaluation: name of the set.
        prompts: number of prompts in the set.
        same: number of those equal to a training prompt up to case, punctuation and white space.
        similar: number of further ones with at least 70 % of their 8-grams in training prompts.
        example: first overlapping prompt.
    """

    evaluation: str
    prompts: int
    same: int
    similar: int
    example: str


def find_overlap(training: Iterable[str], evaluation: Mapping[str, Sequence[str]]) -> list[Overlap]:
    """Overlap of training prompts with each set of evaluation prompts; sets without overlap are omitted."""
    words = {name: [_words_of(prompt) for prompt in prompts] for name, prompts in evaluation.items()}
    whole = {prompt for prompts in words.values() for prompt in prompts}
    runs = {run for prompts in words.values() for prompt in prompts for run in _runs(prompt)}
    # Most training words begin no wanted n-gram; checking that first saves building the n-gram.
    beginnings = {run[0] for run in runs}
    seen: set[tuple[str, ...]] = set()
    seen_runs: set[tuple[str, ...]] = set()
    for text in training:
        prompt = _words_of(text)
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


# Scripts without spaces between words (Thai, Lao, Myanmar, Khmer, Kana, Han), whose characters count as words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’][^\W{_UNSPACED}]+)*")


def normalized(text: str) -> tuple[str, ...]:
    """The words of a text, NFKC-normalized and casefolded, without punctuation and white space."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _words_of(text: str) -> tuple[str, ...]:
    """The words of a text; one without words, such as one of symbols, is its only word."""
    return normalized(text) or (text.strip(),)


def _is_prompt(prompt: Any) -> bool:
    """Whether it is a text, or a list of messages with a text for each of the user's."""
    return isinstance(prompt, str) or (
        isinstance(prompt, list)
        and all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in prompt)
        and all(isinstance(message.get("content"), str) for message in prompt if message["role"] == "user")
    )


def prompt_text(prompt: Any) -> str:
    """A prompt as one string: itself, or the contents of its user messages."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt if message["role"] == "user")


def load_prompts(path: str) -> list[str]:
    """Read evaluation prompts from a text file, one per line, or from the column ``prompt`` of a data file.

    Raises:
        PreferenceDataError: if the file can't be read, or rows have no prompt.
    """
    if Path(path).suffix == ".txt" and os.path.isfile(path):
        return [line for _, line in text_lines(Path(path))]
    rows = read_rows(path, "train", None)
    what, remedy = "it is missing or neither a text nor messages", "write every evaluation prompt into it"
    problems = [Problem(number, "prompt", what, remedy) for number, row in rows if not _is_prompt(row.get("prompt"))]
    if problems:
        raise PreferenceDataError(path, problems)
    return [prompt_text(row["prompt"]) for _, row in rows]


def _runs(words: tuple[str, ...], beginnings: Set[str] | None = None) -> set[tuple[str, ...]]:
    """The n-grams of a text, or those that begin with certain words."""
    places = range(len(words) - WORDS + 1)
    return {words[at : at + WORDS] for at in places if beginnings is None or words[at] in beginnings}


def _is_known(words: tuple[str, ...], seen: set[tuple[str, ...]]) -> bool:
    runs = _runs(words)
    return bool(runs) and len(runs & seen) >= SHARE * len(runs)
