"""`load_preferences`: reads a file or Hub data set of any known shape into one documented set of columns."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bfpo.preferences.checking import flags_of, is_unknown, row_problems
from bfpo.preferences.reading import Row, Rows, RowSource, open_source
from bfpo.preferences.schema import GROUP_COLUMNS, PAIR_COLUMNS, PreferenceDataError, Problem
from bfpo.preferences.shapes import Complain, Shape, detect
from bfpo.preferences.store import RowWriter, stored

if TYPE_CHECKING:
    import datasets

UnknownSafety = Literal["error", "drop", "keep"] | float | None


@dataclass(frozen=True)
class PreferenceReport:
    """Contents of a source and counts of what was kept, dropped and filled.

    Attributes:
        source: file or data set.
        shape: name of its shape.
        read: number of rows read.
        kept: number of rows kept.
        dropped_unknown: number of rows dropped because the safety of an answer is unknown.
        dropped_empty: number of HH-RLHF dialogues dropped because a turn is empty or both continuations are the same.
        filled_unknown: number of rows whose unknown safety was filled with the given probability.
        duplicates: number of rows that repeat the prompt and answers of an earlier one; they are kept.
        ignored_columns: columns that are not read.
        cells: number of rows in each safety cell (SU: chosen Safe, rejected Unsafe), "unknown" for the others.
        digest: SHA-256 of the rows kept.
    """

    source: str
    shape: str
    read: int
    kept: int
    dropped_unknown: int
    dropped_empty: int
    filled_unknown: int
    duplicates: int
    ignored_columns: tuple[str, ...]
    cells: dict[str, int]
    digest: str


def load_preferences(
    name_or_path: str,
    *,
    split: str = "train",
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    unknown_safety: UnknownSafety = None,
) -> datasets.Dataset:
    """Read preferences from a file (JSONL, JSON, CSV, Parquet; gzip too) or a Hub data set.

    Args:
        name_or_path: a file, or the name of a data set on the Hub.
        split: split of a Hub data set.
        revision: revision of a Hub data set.
        columns: columns to rename, theirs to ours.
        unknown_safety: policy for rows in which the safety of an answer is unknown. None or "error": accept it in
            all rows, raise if in only some; "drop": drop such rows; a probability: fill it in; "keep": keep nulls, also
            in the order (``chosen_is_better``), as `bfpo label` does.

    Returns:
        Pairs have the columns ``prompt, chosen, rejected`` (strings, or lists of messages; chosen is the more
        *helpful* answer), ``chosen_is_safe, rejected_is_safe`` (probability or null), ``chosen_is_better``
        (probability), ``chosen_is_safer`` (probability or null), ``category`` (kind of harm, or null) and ``row``
        (1-based, in the source). Rows with K answers have ``prompt, responses, helpfulness`` (K scores or null),
        ``is_safe`` (K probabilities or nulls), ``category`` and ``row``.

    Raises:
        PreferenceDataError: with *every* problem of the source in ``.problems``.
    """
    return inspect_preferences(
        name_or_path, split=split, revision=revision, columns=columns, unknown_safety=unknown_safety
    )[0]


def inspect_preferences(
    name_or_path: str,
    *,
    split: str = "train",
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    unknown_safety: UnknownSafety = None,
) -> tuple[datasets.Dataset, PreferenceReport]:
    """`load_preferences` with a report of what was read, kept and ignored."""
    return convert(open_source(name_or_path, split, revision), unknown_safety, columns)


def convert(
    source: RowSource, unknown_safety: UnknownSafety = None, columns: Mapping[str, str] | None = None
) -> tuple[datasets.Dataset, PreferenceReport]:
    """Convert a source of any known shape to canonical rows, one at a time; earlier results are reused from disk.

    Raises:
        PreferenceDataError: with every problem found.
    """
    key = {"rows": source.digest, "columns": dict(columns or {}), "unknown_safety": unknown_safety}
    rows, notes = stored(key, lambda writer: _convert(source, unknown_safety, columns or {}, writer))
    notes["ignored_columns"] = tuple(notes["ignored_columns"])
    return rows, PreferenceReport(source=source.name, **notes)


def _convert(
    source: RowSource, unknown_safety: UnknownSafety, columns: Mapping[str, str], writer: RowWriter
) -> dict[str, Any]:
    problems: list[Problem] = []
    tally = _Tally()

    def read(problems: list[Problem]) -> Rows:
        for number, row in source.read(problems):
            tally.read += 1
            yield number, {columns.get(name, name): value for name, value in row.items()}

    present = dict.fromkeys(name for _, row in read(problems) for name in row)
    shape, mistyped = detect(present) if present else (None, [])
    problems += mistyped
    if shape is None or mistyped:
        raise PreferenceDataError(source.name, problems)
    tally = _Tally()
    # The first pass has already noted unreadable rows.
    for row in _canonical(shape, read([]), problems, order_may_be_open=unknown_safety == "keep"):
        tally.usable += 1
        if is_unknown(row):
            tally.unknown.append(row["row"])
            if unknown_safety == "drop":
                continue
            if isinstance(unknown_safety, int | float):
                row = _filled(row, float(unknown_safety))
        if not writer.rows:
            writer.open(_features(shape, row))
        tally.keep(row)
        writer.write({name: _plain(row.get(name)) for name in _names(shape)})
    if unknown_safety in (None, "error") and 0 < len(tally.unknown) < tally.usable:
        remedy = "label them, or set unknown_safety to 'drop' or to a probability"
        what = "the safety of an answer is unknown here but known in other rows"
        problems += [Problem(number, None, what, remedy) for number in tally.unknown]
    if problems:
        raise PreferenceDataError(source.name, sorted(problems, key=lambda problem: problem.row or 0))
    if not writer.rows:
        remedy = "set unknown_safety to a probability, or label the answers"
        raise PreferenceDataError(
            source.name, [Problem(None, None, "no row has a known safety for all its answers", remedy)]
        )
    return {
        "shape": shape.name,
        "read": tally.read,
        "kept": writer.rows,
        "dropped_unknown": tally.usable - writer.rows,
        "dropped_empty": tally.read - tally.usable,
        "filled_unknown": len(tally.unknown) if isinstance(unknown_safety, int | float) else 0,
        "duplicates": writer.rows - len(tally.seen),
        "ignored_columns": [name for name in present if name not in shape.required + shape.optional],
        "cells": dict(sorted(tally.cells.items())) if shape.kind == "pairs" else {},
        "digest": tally.digest.hexdigest(),
    }


@dataclass
class _Tally:
    """Counts taken while rows are read; of the texts only short digests stay in memory."""

    read: int = 0
    usable: int = 0
    unknown: list[int] = field(default_factory=list)
    cells: Counter[str] = field(default_factory=Counter)
    seen: set[bytes] = field(default_factory=set)
    digest: Any = field(default_factory=hashlib.sha256)

    def keep(self, row: Row) -> None:
        """Count a kept row."""
        self.cells[_cell(row)] += 1
        texts = [row.get(name) for name in ("prompt", "chosen", "rejected", "responses")]
        self.seen.add(hashlib.blake2b(json.dumps(texts).encode(), digest_size=12).digest())
        self.digest.update(json.dumps(row, sort_keys=True).encode())


def _canonical(shape: Shape, numbered: Rows, problems: list[Problem], order_may_be_open: bool) -> Iterator[Row]:
    kind: type | None = None
    for number, row in numbered:
        converted = shape.convert(row, _complaints(number, problems))
        if converted is None:
            continue
        found = list(row_problems(number, converted, order_may_be_open))
        if not found and kind not in (None, type(converted["prompt"])):
            what = "the prompt is a string in some rows and messages in others"
            found = [Problem(number, "prompt", what, "write all rows alike")]
        problems += found
        if not found:
            kind = type(converted["prompt"])
            yield converted | {"row": number}


def _complaints(number: int, problems: list[Problem]) -> Complain:
    def complain(column: str | None, what: str, remedy: str) -> None:
        problems.append(Problem(number, column, what, remedy))

    return complain


def _filled(row: Row, probability: float) -> Row:
    def fill(flag: Any) -> Any:
        return probability if flag is None else flag

    if "chosen" in row:
        names = ("chosen_is_safe", "rejected_is_safe")
        return row | {name: fill(row[name]) for name in names}
    return row | {"is_safe": [fill(flag) for flag in row["is_safe"]]}


def _cell(row: Row) -> str:
    flags = flags_of(row)
    if any(flag is None for flag in flags):
        return "unknown"
    return "".join("S" if flag >= 0.5 else "U" for flag in flags)


def count_cells(rows: datasets.Dataset) -> dict[str, int]:
    """Number of pairs in each safety cell, as in `PreferenceReport`; empty if the rows are not pairs."""
    if "chosen_is_safe" not in rows.column_names:
        return {}
    flags: Any = rows.select_columns(["chosen_is_safe", "rejected_is_safe"])
    return dict(sorted(Counter(_cell(row | {"chosen": None}) for row in flags).items()))


def _features(shape: Shape, row: Row) -> datasets.Features:
    import datasets
    from datasets import Value

    number = Value("float64")
    text = [{"role": Value("string"), "content": Value("string")}]
    text = text if isinstance(row["prompt"], list) else Value("string")
    kinds: dict[str, Any] = {
        "prompt": text,
        "chosen": text,
        "rejected": text,
        "responses": [text],
        "helpfulness": [number],
        "is_safe": [number],
        "category": Value("string"),
        "row": Value("int64"),
    }
    return datasets.Features({name: kinds.get(name, number) for name in _names(shape)})


def _names(shape: Shape) -> tuple[str, ...]:
    return PAIR_COLUMNS if shape.kind == "pairs" else GROUP_COLUMNS


def _plain(value: Any) -> Any:
    """A value with flags as numbers and messages reduced to role and content."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {"role": value["role"], "content": value["content"]}
    return float(value) if isinstance(value, bool) else value
