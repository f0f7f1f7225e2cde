"""Training data: encoded and checked rows of main sources and buffer, with their reference log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from bfpo.engine.forward import Engine
from bfpo.engine.reference_cache import ReferenceCache, answer_keys, fill_cache
from bfpo.errors import BfpoError
from bfpo.models import context_length, end_tokens, uniform_length
from bfpo.objectives.registry import Objective
from bfpo.preferences.encoding import Encoded, EncodingCounts, encode
from bfpo.preferences.loading import checked, is_canonical
from bfpo.preferences.ordering import preferred_answers
from bfpo.preferences.store import arrow_tables
from bfpo.training.batches import ROWS_AT_ONCE, as_rows, token_chunks, token_groups
from bfpo.training.mismatched import mismatched_rows, with_mismatched


@dataclass(frozen=True)
class TrainingSource:
    """Rows from one source.

    Attributes:
        rows: rows from `load_preferences`.
        name: name in messages and records.
        role: "main" rows define the epochs, "buffer" rows cycle.
    """

    rows: datasets.Dataset
    name: str = "train_dataset"
    role: Literal["main", "buffer"] = "main"

    def __post_init__(self) -> None:
        if self.role not in ("main", "buffer"):
            raise BfpoError(f"the role of {self.name!r} is 'main' or 'buffer', not {self.role!r}")


@dataclass(frozen=True)
class Blend:
    """Several sources to train on together, such as the paper's safety set and helpfulness buffer.

    Attributes:
        sources: the sources, at least one of them with the role "main".
    """

    sources: Sequence[TrainingSource]

    def __post_init__(self) -> None:
        if all(source.role == "buffer" for source in self.sources):
            raise BfpoError("a Blend needs at least one source with the role 'main', whose rows define the epochs")


@dataclass(frozen=True)
class TrainingData:
    """Encoded rows, main rows first, with the number of each and the encoding counts by source."""

    rows: datasets.Dataset
    main: int
    buffer: int
    counts: dict[str, EncodingCounts]


@dataclass(frozen=True)
class ReferenceCounts:
    """Numbers of answers whose reference came from the cache, and of answers that were scored."""

    reused: int = 0
    scored: int = 0

    def __add__(self, other: ReferenceCounts) -> ReferenceCounts:
        return ReferenceCounts(self.reused + other.reused, self.scored + other.scored)


@dataclass(frozen=True)
class KnownTokens:
    """What a model knows of tokens.

    Attributes:
        vocabulary: number of its embeddings.
        ends: tokens at which it stops, see `bfpo.models.end_tokens`.
        context: largest number of tokens that it has positions for; None without a limit.
        uniform: largest number up to which a row's scores don't depend on those read with it; None without a limit.
    """

    vocabulary: int
    ends: Sequence[int]
    context: int | None = None
    uniform: int | None = None

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> KnownTokens:
        """What a loaded model knows, with or without an adapter."""
        ends = end_tokens(getattr(model, "generation_config", None), tokenizer)
        vocabulary = model.get_input_embeddings().weight.shape[0]
        return cls(vocabulary, ends, context_length(model.config), uniform_length(model.config))


def prepare(
    data: datasets.Dataset | Blend,
    tokenizer: Any,
    max_length: int,
    objective: Objective,
    known: KnownTokens,
    name: str = "train_dataset",
) -> TrainingData:
    """Encode every source, and check that it has the labels that the objective reads.

    Args:
        data: rows of `load_preferences` or in any other known shape, or several sources of rows.
        tokenizer: the tokenizer.
        max_length: largest number of tokens in prompt and answer together.
        objective: the objective.
        known: what the model knows of tokens.
        name: name of the rows in messages if they are not a `Blend`.

    Raises:
        BfpoError: if the data is of another type, a source has no rows, a label is missing, a pairwise objective gets
            single answers, or the model doesn't know a token or has too few positions.
    """
    if not isinstance(data, (datasets.Dataset, Blend)):  # pyright: ignore[reportUnnecessaryIsInstance]
        hint = f", one of whose splits it takes: {', '.join(data)}" if isinstance(data, datasets.DatasetDict) else ""
        raise BfpoError(f"{name} must be a datasets.Dataset or a Blend, not a {type(data).__name__}{hint}")
    is_blend = isinstance(data, Blend)
    sources = data.sources if is_blend else [TrainingSource(data, name)]
    for source in sources:
        if not len(source.rows):
            raise BfpoError(f"{source.name} has no rows: check how they were loaded or selected")
    ordered = sorted(sources, key=lambda source: source.role != "main")
    encoded: dict[str, Encoded] = {}
    for source in ordered:
        # Data sets in other formats are converted and checked; a blend's were checked when they were loaded.
        rows = source.rows if is_blend and is_canonical(source.rows) else checked(source.name, source.rows)
        if objective.normalizer == "tokens":
            rows = preferred_answers(rows, "helpful")
        encoded[source.name] = encode(rows, tokenizer, max_length, ends=known.ends, name=source.name)
    if len(encoded) < len(ordered):
        raise BfpoError("two sources have the same name: give every source its own name")
    for name, part in encoded.items():
        _check(part.counts, name, objective)
        _check_tokens(part.dataset, name, tokenizer, known, max_length)
    _check_costs(encoded)
    rows = datasets.concatenate_datasets([part.dataset for part in encoded.values()])
    if objective.estimates_kl:
        rows = with_mismatched(rows, min(filter(None, (max_length, known.context, known.uniform))))
    main = sum(len(encoded[source.name].dataset) for source in ordered if source.role == "main")
    return TrainingData(rows, main, len(rows) - main, {name: part.counts for name, part in encoded.items()})


def with_reference(
    data: TrainingData,
    cache: ReferenceCache,
    engine: Engine,
    model: Any,
    accelerator: Accelerator,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[TrainingData, ReferenceCounts]:
    """Add the reference log-probability of every answer, in nats; also of those to other prompts, if rows have them.

    All processes together score the answers missing in the cache with the model before its first update, with one chunk
    of rows in memory at a time. ``progress`` is called with the numbers of answers that this process has scored and has
    to score.
    """
    reference, counts = _reference(data.rows, cache, engine, model, accelerator, progress)
    rows = data.rows.add_column("reference", reference)  # pyright: ignore[reportArgumentType]
    if "mismatched_ids" in rows.column_names:
        single, others = _reference(mismatched_rows(rows), cache, engine, model, accelerator, progress)
        rows = rows.add_column("mismatched_reference", single.flatten())  # pyright: ignore[reportArgumentType]
        counts += others
    return replace(data, rows=rows), counts


def _reference(
    rows: datasets.Dataset,
    cache: ReferenceCache,
    engine: Engine,
    model: Any,
    accelerator: Accelerator,
    progress: Callable[[int, int], None] | None,
) -> tuple[Any, ReferenceCounts]:
    """The reference log-probabilities of each row's answers, as an Arrow array of lists."""
    chunks = [(answer_keys(groups), [len(group.answers) for group in groups]) for groups in token_chunks(rows)]
    keys = np.concatenate([part for part, _ in chunks])
    answers = np.array([number for _, numbers in chunks for number in numbers])
    # The first process's cache decides, since it may already be writing while the others read theirs.
    unknown = _from_first(np.isnan(cache.get(keys)), accelerator)
    ends = np.cumsum(answers)
    missing = np.flatnonzero(np.logical_or.reduceat(unknown, ends - answers))
    before = len(cache.parts)
    with accelerator.autocast():
        own = rows.select(missing[accelerator.process_index :: accelerator.num_processes])
        starts = range(0, len(own), ROWS_AT_ONCE)
        parts = (own.select(range(start, min(start + ROWS_AT_ONCE, len(own)))) for start in starts)
        to_score = int(answers[missing[accelerator.process_index :: accelerator.num_processes]].sum())
        fill_cache(
            engine,
            model,
            (token_groups(as_rows(part)) for part in parts),
            cache,
            lambda scored: progress(scored, to_score) if progress else None,
        )
    if accelerator.num_processes > 1:
        cache.parts[before:] = gather_object(cache.parts[before:])
    sums = _from_first(cache.get(keys), accelerator)
    column = pyarrow.ListArray.from_arrays(np.concatenate([[0], ends]).astype(np.int32), sums)
    scored = int(answers[missing].sum())
    return column, ReferenceCounts(len(keys) - scored, scored)


def _from_first(values: np.ndarray, accelerator: Accelerator) -> np.ndarray:
    """The first process's values, broadcast to all."""
    return broadcast_object_list([values])[0] if accelerator.num_processes > 1 else values


def _check(counts: EncodingCounts, source: str, objective: Objective) -> None:
    if objective.normalizer == "groups" and counts.first_without_pair is not None:
        raise BfpoError(
            f"{source}, row {counts.first_without_pair}: a pairwise objective needs at least two answers per prompt; "
            "train single answers with loss_type 'sft'"
        )
    if objective.reads_safety and counts.first_unknown_safety is not None:
        raise BfpoError(
            f"{source}, row {counts.first_unknown_safety}: the objective needs the safety of every answer, which is "
            "unknown here; add chosen_is_safe and rejected_is_safe, or load the source with unknown_safety=1.0 "
            "(all safe, like the paper's buffer) or 'drop'"
        )
    if objective.reads_reward and counts.first_without_reward is not None:
        raise BfpoError(
            f"{source}, row {counts.first_without_reward}: the objective needs the reward of every answer by another "
            "objective; add chosen_reward and rejected_reward (for K answers, reward)"
        )
    if objective.needs_probabilities and counts.first_beyond_probabilities is not None:
        raise BfpoError(
            f"{source}, row {counts.first_beyond_probabilities}: the objective multiplies flags with each other, and a "
            "flag or order is outside [0, 1] here; use verdicts, or unsafe_pairs 'keep' for BFPO"
        )


def _check_costs(encoded: Mapping[str, Encoded]) -> None:
    """Refuse an answer without the cost of its harm where others have one."""
    has_costs, unpriced = False, None
    for name, part in encoded.items():
        for table in arrow_tables(part.dataset.select_columns(["cost", "row"]), ROWS_AT_ONCE):
            for costs, row in zip(table["cost"].to_pylist(), table["row"].to_pylist(), strict=True):
                has_costs = has_costs or bool(costs)
                unpriced = unpriced or (f"{name}, row {row}" if not costs or None in costs else None)
    if has_costs and unpriced:
        raise BfpoError(f"{unpriced}: an answer has no cost, and others have one: price the harm of all sources")


def _check_tokens(rows: datasets.Dataset, source: str, tokenizer: Any, known: KnownTokens, max_length: int) -> None:
    """Refuse rows with a token that the model has no embedding for, and rows that are too long for it."""
    longest = min((end for end in (known.context, known.uniform) if end is not None), default=max_length)
    if longest >= max_length and len(tokenizer) <= known.vocabulary:
        return
    for at, group in enumerate(group for groups in token_chunks(rows) for group in groups):
        if group.width > longest:
            why = f"the model has {longest:,} positions"
            if longest != known.context:
                why = f"above {longest:,} its rotary embeddings (longrope) change for all rows that it reads together"
            raise BfpoError(
                f"{source}, row {rows[at]['row']}: prompt and answer have {group.width:,} tokens, and {why}: set "
                f"max_length to {longest} or less"
            )
        largest = max(max(ids) for ids in (group.prompt, *group.answers))
        if largest >= known.vocabulary:
            token = tokenizer.convert_ids_to_tokens([int(largest)])[0]
            raise BfpoError(
                f"{source}, row {rows[at]['row']}: the model has {known.vocabulary} embeddings, but the tokenizer has "
                f"{len(tokenizer)} tokens, and this row has {token!r} with id {largest}: use the model's own "
                "tokenizer, or resize the model's embeddings (resize_token_embeddings) and save it"
            )
