"""`load_preferences`: from a file or Hub data set in any known shape to one documented set of columns."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from bfpo.preferences.checking import flags_of, is_unknown, row_problems
from bfpo.preferences.reading import Row, read_rows
from bfpo.preferences.schema import GROUP_COLUMNS, PAIR_COLUMNS, PreferenceDataError, Problem
from bfpo.preferences.shapes import Complain, Shape, detect

if TYPE_CHECKING:
    import datasets

UnknownSafety = Literal["error", "drop", "keep"] | float | None


@dataclass(frozen=True)
class PreferenceReport:
    """What is in a source, and what was done with it.

    Attributes:
        source: file or data set.
        shape: the shape it has.
        read: rows read.
        kept: rows kept.
        dropped_unknown: rows dropped because the safety of an answer is unknown.
        dropped_empty: dialogues of HH-RLHF that were left out, as a turn is empty or both continuations are the same.
        filled_unknown: rows in which an unknown safety was filled with the probability given.
        duplicates: rows that repeat an earlier one's prompt and answers; they are kept.
        ignored_columns: columns that are not read.
        cells: rows of each safety cell (SU: chosen Safe, rejected Unsafe), "unknown" for the others.
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

    def record(self) -> dict[str, Any]:
        """The report for a run's record."""
        return asdict(self)


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
        unknown_safety: what to do with rows in which the safety of an answer is unknown. None or "error": fine if
            it is unknown in all rows, an error if in some; "drop": leave such rows out; a probability: assume it;
            "keep": leave it null, as `bfpo label` does, and let the order (``chosen_is_better``) be null too.

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
    """As `load_preferences`, with a report of what was read, kept and ignored."""
    numbered = read_rows(name_or_path, split, revision)
    if columns:
        numbered = [
            (number, {columns.get(name, name): value for name, value in row.items()}) for number, row in numbered
        ]
    return convert_rows(name_or_path, numbered, unknown_safety)


def convert_rows(
    source: str, numbered: list[tuple[int, Row]], unknown_safety: UnknownSafety = None
) -> tuple[datasets.Dataset, PreferenceReport]:
    """Make canonical rows of rows in any known shape.

    Raises:
        PreferenceDataError: with every problem found.
    """
    present = dict.fromkeys(name for _, row in numbered for name in row)
    shape, problems = detect(present)
    if shape is None or problems:
        raise PreferenceDataError(source, problems)
    rows = _canonical(shape, numbered, problems, order_may_be_open=unknown_safety == "keep")
    unknown = sum(map(is_unknown, rows))
    if unknown_safety in (None, "error") and 0 < unknown < len(rows):
        remedy = "label them, or set unknown_safety to 'drop' or to a probability"
        problems += [
            Problem(row["row"], None, "the safety of an answer is unknown, though other rows say theirs", remedy)
            for row in rows
            if is_unknown(row)
        ]
    if problems:
        raise PreferenceDataError(source, sorted(problems, key=lambda problem: problem.row or 0))
    kept = [row for row in rows if unknown_safety != "drop" or not is_unknown(row)]
    if not kept:
        remedy = "set unknown_safety to a probability, or label the answers"
        raise PreferenceDataError(source, [Problem(None, None, "no row says how safe its answers are", remedy)])
    filled = 0
    if isinstance(unknown_safety, int | float):
        filled = sum(map(is_unknown, kept))
        kept = [_filled(row, float(unknown_safety)) for row in kept]
    report = PreferenceReport(
        source=source,
        shape=shape.name,
        read=len(numbered),
        kept=len(kept),
        dropped_unknown=len(rows) - len(kept),
        dropped_empty=len(numbered) - len(rows),
        filled_unknown=filled,
        duplicates=_duplicates(kept),
        ignored_columns=tuple(name for name in present if name not in shape.required + shape.optional),
        cells=dict(sorted(Counter(map(_cell, kept)).items())) if shape.kind == "pairs" else {},
        digest=hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest(),
    )
    return _as_dataset(shape, kept), report


def _canonical(
    shape: Shape, numbered: list[tuple[int, Row]], problems: list[Problem], order_may_be_open: bool
) -> list[Row]:
    rows = []
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
            rows.append(converted | {"row": number})
    return rows


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


def _duplicates(rows: list[Row]) -> int:
    answers = ("prompt", "chosen", "rejected", "responses")
    keys = [json.dumps([row.get(name) for name in answers]) for row in rows]
    return len(keys) - len(set(keys))


def _cell(row: Row) -> str:
    flags = flags_of(row)
    if any(flag is None for flag in flags):
        return "unknown"
    return "".join("S" if flag >= 0.5 else "U" for flag in flags)


def _as_dataset(shape: Shape, rows: list[Row]) -> datasets.Dataset:
    import datasets
    from datasets import Value

    number = Value("float64")
    text = [{"role": Value("string"), "content": Value("string")}]
    text = text if isinstance(rows[0]["prompt"], list) else Value("string")
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
    names = PAIR_COLUMNS if shape.kind == "pairs" else GROUP_COLUMNS
    features = datasets.Features({name: kinds.get(name, number) for name in names})
    columns = {name: [_plain(row.get(name)) for row in rows] for name in names}
    return datasets.Dataset.from_dict(columns, features=features)


def _plain(value: Any) -> Any:
    """Flags as numbers, and of messages only role and content."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {"role": value["role"], "content": value["content"]}
    return float(value) if isinstance(value, bool) else value
