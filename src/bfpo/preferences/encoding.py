"""Tokenization of prompts and answers, shared by training, evaluation and sampling."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from bfpo.errors import BfpoError
from bfpo.preferences.rendering import Renderer, RenderError, Text
from bfpo.preferences.schema import TRUNCATED_COLUMNS, PreferenceDataError, Problem
from bfpo.preferences.store import RowWriter, rows_digest, stored

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase


@dataclass
class EncodingCounts:
    """Counts of what happened during encoding.

    Attributes:
        rows: number of rows encoded.
        truncated_answers: number of answers cut at the end to fit ``max_length``; they have no end.
        unended_answers: number of answers that were cut when they were sampled (``truncated``), and so have no end.
        added_ends: number of answers whose template writes no end that the model stops at; the tokenizer's was added.
        answers_with_context: number of answers of several turns, of which only the assistant's are trained on.
        skipped_rows: row numbers whose prompt leaves no room for an answer.
        equal_answers: number of rows whose answers all have the same tokens, cut or as rendered: no training signal.
        templated_strings: number of rows whose plain strings went through the chat template as a user message.
        moved_boundaries: number of rows whose last prompt tokens depend on the answer and were moved to it.
        first_unknown_safety: number of the first row in which the safety of an answer is unknown.
        first_without_pair: number of the first row without two answers to compare.
        first_without_reward: number of the first row whose answers have no reward.
        first_beyond_probabilities: number of the first row with a flag or an order outside [0, 1].
    """

    rows: int = 0
    truncated_answers: int = 0
    unended_answers: int = 0
    added_ends: int = 0
    answers_with_context: int = 0
    skipped_rows: list[int] = field(default_factory=list)
    equal_answers: int = 0
    templated_strings: int = 0
    moved_boundaries: int = 0
    first_unknown_safety: int | None = None
    first_without_pair: int | None = None
    first_without_reward: int | None = None
    first_beyond_probabilities: int | None = None


@dataclass(frozen=True)
class Encoded:
    """Encoded rows and their counts."""

    dataset: datasets.Dataset
    counts: EncodingCounts


def encode(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    ends: Collection[int] = (),
    name: str = "rows",
) -> Encoded:
    """Encode rows of `load_preferences` one at a time; earlier encodings are reused from disk.

    Args:
        rows: pairs or groups, in the documented columns or TRL's.
        tokenizer: the tokenizer, whose chat template (if any) renders messages and plain strings.
        max_length: largest number of tokens in prompt and answer together; longer answers are cut at the end.
        ends: tokens at which the model stops (`bfpo.models.end_tokens`), besides the tokenizer's end of sequence.
        name: name of the rows in messages.

    Returns:
        A data set on disk with ``prompt_ids``, ``answer_ids`` (K lists, each ending in one end unless it was cut),
        ``context`` (places of tokens of other turns in each answer, which are not trained on; empty if there are none
        in any), ``weight`` of the row (or null), ``is_safe`` (K), ``reward`` (K, or empty), the pairs ``first``,
        ``second`` (answer indices, the more helpful first) and ``first_is_better``, ``cost`` (K, or empty: see
        `bfpo.preferences.harm.with_costs`), and ``row``.

    Raises:
        PreferenceDataError: if the chat template can't render rows, or leaves out a part of them; with every such row.
        BfpoError: if no row has room for an answer.
    """
    key = {
        "rows": rows_digest(rows),
        "tokenizer": tokenizer_digest(tokenizer),
        "max_length": max_length,
        "ends": sorted(ends),
    }
    renderer = Renderer(tokenizer, ends)

    def build(writer: RowWriter) -> dict[str, Any]:
        counts, problems = _write_rows(writer, rows, renderer, max_length)
        if problems:
            raise PreferenceDataError(name, problems, is_set=False)
        if not writer.rows:
            raise BfpoError(f"every prompt fills max_length {max_length} on its own, so no row is left; raise it")
        return asdict(counts)

    dataset, counts = stored(key, build)
    return Encoded(dataset, EncodingCounts(**counts))


def _write_rows(
    writer: RowWriter, rows: datasets.Dataset, renderer: Renderer, max_length: int
) -> tuple[EncodingCounts, list[Problem]]:
    """Encode and write rows; returns the counts, and the rows that the template can't render."""
    counts, problems = EncodingCounts(), []
    writer.open(_features())
    for at, row in enumerate(rows):
        try:
            result = _encode_row(row, at, renderer, max_length, counts)  # pyright: ignore
        except RenderError as error:
            problems.append(Problem(row.get("row", at + 1), None, error.what, error.remedy))  # pyright: ignore
            continue
        if result is not None:
            writer.write(result)
    counts.rows = writer.rows
    return counts, problems


def _features() -> datasets.Features:
    import datasets

    value, listed = datasets.Value, datasets.List
    ids, number = value("int32"), value("float64")
    return datasets.Features(
        {
            "prompt_ids": listed(ids),
            "answer_ids": listed(listed(ids)),
            "is_safe": listed(number),
            "reward": listed(number),
            "context": listed(listed(ids)),
            "weight": number,
            "first": listed(ids),
            "second": listed(ids),
            "first_is_better": listed(number),
            "cost": listed(number),
            "row": value("int64"),
        }
    )


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of all that determines token ids: the tokenizer, its settings and its chat template."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    settings = {name: value for name, value in tokenizer.init_kwargs.items() if name != "name_or_path"}
    parts = [type(tokenizer).__name__, vocabulary, settings, tokenizer.special_tokens_map, tokenizer.chat_template]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Text) -> list[int]:
    """Token ids of a prompt, up to the start of the answer; see `Renderer.prompt`."""
    return Renderer(tokenizer).prompt(prompt)


def _encode_row(
    row: dict[str, Any],
    at: int,
    renderer: Renderer,
    max_length: int,
    counts: EncodingCounts,
) -> dict[str, Any] | None:
    number = row.get("row", at + 1)
    answers, labels = labels_of(row)
    unended = _truncated(row, len(answers))
    group = renderer.group(row["prompt"], answers, row.get("tools"), unended)
    if not group.prompt:
        raise RenderError("the prompt has no token before the answers differ from it", "use a chat template")
    room = max_length - len(group.prompt)
    context = [[place for place in places if place < room] for places in group.context]
    if any(min(len(ids), room) <= len(places) for ids, places in zip(group.answers, context, strict=True)):
        counts.skipped_rows.append(number)
        return None
    kept = [ids[:room] for ids in group.answers]
    counts.equal_answers += len(kept) > 1 and all(ids == kept[0] for ids in kept)
    if counts.first_unknown_safety is None and None in labels["is_safe"]:
        counts.first_unknown_safety = number
    if counts.first_without_pair is None and not labels["first"]:
        counts.first_without_pair = number
    if counts.first_without_reward is None and not labels["reward"]:
        counts.first_without_reward = number
    values = [value for value in (*labels["is_safe"], *labels["first_is_better"]) if value is not None]
    if counts.first_beyond_probabilities is None and not all(0 <= value <= 1 for value in values):
        counts.first_beyond_probabilities = number
    counts.truncated_answers += sum(len(ids) > room for ids in group.answers)
    counts.unended_answers += len(unended)
    counts.added_ends += group.added_ends
    counts.answers_with_context += sum(map(bool, context))
    counts.moved_boundaries += group.moved
    counts.templated_strings += isinstance(row["prompt"], str) and bool(renderer.tokenizer.chat_template)
    weight = row.get("weight")
    return {
        "prompt_ids": group.prompt,
        "answer_ids": kept,
        "context": context if any(context) else [],
        "weight": None if weight is None else float(weight),
        "row": number,
        "cost": row.get("cost") or [],
    } | labels


def labels_of(row: dict[str, Any]) -> tuple[list[Text], dict[str, Any]]:
    """A row's answers, and the labels of its answers and pairs under the names of `encode`."""
    if "chosen" in row:
        pairs = [(0, 1, row.get("chosen_is_better", 1.0))]
        is_safe = [row.get("chosen_is_safe"), row.get("rejected_is_safe")]
        answers = [row["chosen"], row["rejected"]]
        reward = [row["chosen_reward"], row["rejected_reward"]] if "chosen_reward" in row else []
    else:
        answers = row["responses"] if "responses" in row else [row["completion"]]
        is_safe = row.get("is_safe") or [None] * len(answers)
        pairs = _group_pairs(row) if len(answers) > 1 else []
        reward = row.get("reward") or []
    labels = {
        "is_safe": [None if flag is None else float(flag) for flag in is_safe],
        "reward": [float(value) for value in reward],
        "first": [first for first, _, _ in pairs],
        "second": [second for _, second, _ in pairs],
        "first_is_better": [float(probability) for _, _, probability in pairs],
    }
    return answers, labels


def _truncated(row: dict[str, Any], count: int) -> list[int]:
    """Indices of a row's answers that were cut when they were sampled."""
    names = TRUNCATED_COLUMNS["pairs"] if "chosen" in row else TRUNCATED_COLUMNS["groups"]
    values = [row.get(name) for name in names]
    flags = values if "chosen" in row else values[0] or [None] * count
    return [at for at, flag in enumerate(flags) if flag]


def _group_pairs(row: dict[str, Any]) -> list[tuple[int, int, float]]:
    """The pairs of a group: those that it names (see `group_by_prompt`), or all of them by their scores."""
    if "first" in row:
        return list(zip(row["first"], row["second"], row["first_is_better"], strict=True))
    return [] if row.get("helpfulness") is None else _pairs(row["helpfulness"])


def _pairs(scores: Sequence[float]) -> list[tuple[int, int, float]]:
    """All pairs of K answers as (higher score, lower score, P(first is better)); a tie is 1/2."""
    pairs = []
    for i, j in combinations(range(len(scores)), 2):
        first, second = (i, j) if scores[i] >= scores[j] else (j, i)
        pairs.append((first, second, 1.0 if scores[first] > scores[second] else 0.5))
    return pairs
