"""`load_preferences`: reads a file or Hub data set of any known shape into one documented set of columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bfpo.errors import BfpoError
from bfpo.preferences.answers import answers_of, flags_of, is_pair, with_flags
from bfpo.preferences.attack_formats import by_prompt
from bfpo.preferences.checking import is_unknown, is_unordered, leave_out_useless, row_problems
from bfpo.preferences.label_columns import label_column
from bfpo.preferences.messages import check_trained, tools_of
from bfpo.preferences.prompts import CONTEXT_COLUMNS, is_blank, with_system_prompt
from bfpo.preferences.reading import Row, Rows, RowSource, dataset_source, open_source
from bfpo.preferences.schema import (
    GROUP_COLUMNS,
    LABEL_COLUMNS,
    PAIR_COLUMNS,
    REWARD_COLUMNS,
    TRUNCATED_COLUMNS,
    LeftOutError,
    PreferenceDataError,
    Problem,
    RowError,
)
from bfpo.preferences.source_columns import SourceColumns, renamed, scan
from bfpo.preferences.store import RowWriter, stored
from bfpo.preferences.tally import Tally, cell_of

if TYPE_CHECKING:
    import datasets

UnknownSafety = Literal["error", "drop", "keep"] | float | None
UnknownOrder = Literal["error", "drop"] | float | None


@dataclass(frozen=True)
class PreferenceReport:
    """Contents of a source and counts of what was kept, dropped and filled.

    Attributes:
        source: file or data set.
        shape: name of its shape.
        read: number of rows read.
        kept: number of rows kept.
        dropped_unknown: number of rows dropped because the safety of an answer is unknown.
        dropped_unordered: number of rows dropped because it is unknown which answer is the more helpful one.
        left_out: number of rows, answers and verdicts of no use that are not in the set, by reason.
        merged: number of rows that joined the group of an earlier one, because they have the same prompt.
        filled_unknown: number of rows whose unknown safety was filled with the given probability.
        filled_unordered: number of rows whose unknown order was filled with 1/2.
        split_prompts: number of rows without a prompt whose texts were split where they part, as TRL does.
        duplicates: number of rows that repeat the prompt and answers of an earlier one; they are kept.
        ignored_columns: columns that are not read, and fields of messages such as "chosen.id".
        cells: number of rows in each safety cell (SU: chosen Safe, rejected Unsafe), "unknown" for the others.
        categories: the same by harm category, of pairs in which an answer or the row has it; for K answers, the number
            of such rows under "rows".
        digest: SHA-256 of the rows kept.
    """

    source: str
    shape: str
    read: int
    kept: int
    dropped_unknown: int
    dropped_unordered: int
    left_out: dict[str, int]
    merged: int
    filled_unknown: int
    filled_unordered: int
    split_prompts: int
    duplicates: int
    ignored_columns: tuple[str, ...]
    cells: dict[str, int]
    categories: dict[str, dict[str, int]]
    digest: str


@dataclass(frozen=True)
class Reading:
    """How to read a source.

    Attributes:
        columns: columns to rename, theirs to ours; "" leaves one out.
        unknown_safety: policy for rows in which the safety of an answer is unknown.
        unknown_order: policy for rows in which it is unknown which answer is the more helpful one.
        system_prompt: system prompt for rows without one, which all become messages.

    Raises:
        BfpoError: if a policy is unknown.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    unknown_safety: UnknownSafety = None
    unknown_order: UnknownOrder = None
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        safety, order = self.unknown_safety, self.unknown_order
        if safety not in (None, "error", "drop", "keep") and (isinstance(safety, str) or not 0 <= safety <= 1):
            raise BfpoError(f"unknown_safety is {safety!r}: write error, drop, or a probability")
        if order not in (None, "error", "drop", 0.5):
            raise BfpoError(f"unknown_order is {order!r}: write error, drop or 0.5")

    @property
    def order_may_be_open(self) -> bool:
        """Whether rows without an order are kept, filled or dropped."""
        return self.unknown_safety == "keep" or self.unknown_order not in (None, "error")


def load_preferences(
    name_or_path: str,
    *,
    split: str = "train",
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    unknown_safety: UnknownSafety = None,
    unknown_order: UnknownOrder = None,
    system_prompt: str | None = None,
) -> datasets.Dataset:
    """Read preferences from a file (JSONL, JSON, CSV, Parquet; gzip too) or a Hub data set.

    Args:
        name_or_path: a file, or the name of a data set on the Hub.
        split: split of a Hub data set.
        revision: revision of a Hub data set.
        columns: columns to rename, theirs to ours; "" leaves one out.
        unknown_safety: policy for rows in which the safety of an answer is unknown. None or "error": accept it in
            all rows, raise if in only some; "drop": drop such rows; a probability: fill it in; "keep": keep nulls, also
            in the order (``chosen_is_better``), as `bfpo label` does.
        unknown_order: policy for rows in which it is unknown which answer is the more helpful one
            (``chosen_is_better`` or ``helpfulness`` is null). None or "error": raise; "drop": drop such rows; 0.5: both
            are equally likely to be.
        system_prompt: system prompt for rows without one; all rows then become messages.

    Returns:
        Pairs have the columns ``prompt, chosen, rejected`` (strings, or lists of messages; chosen is the more
        *helpful* answer), ``chosen_is_safe, rejected_is_safe`` (probability or null), ``chosen_is_better``
        (probability), ``chosen_is_safer`` (probability or null), ``category`` (kind of harm, list of kinds, or null)
        and ``row`` (1-based, in the source). Rows with K answers have ``prompt, responses, helpfulness`` (K scores or
        null), ``is_safe`` (K probabilities or nulls), ``category`` and ``row``. Where the source has them: ``tools``
        (JSON text), ``weight``, and ``chosen_harm, rejected_harm`` or the list ``harm`` (JSON text with the level in
        (0, 1] of each harm category; null if unknown); messages then have their ``tool_calls`` as JSON text. In files
        that `bfpo label` wrote also ``labelled_by`` and ``judged_as`` (JSON text, see
        `bfpo.preferences.label_columns`).

    Raises:
        PreferenceDataError: with *every* problem of the source in ``.problems``.
        BfpoError: if an argument is wrong.
    """
    reading = Reading(columns or {}, unknown_safety, unknown_order, system_prompt)
    return convert(open_source(name_or_path, split, revision), reading)[0]


def inspect_preferences(
    name_or_path: str,
    *,
    split: str = "train",
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    **policies: Any,
) -> tuple[datasets.Dataset, PreferenceReport]:
    """`load_preferences` with a report of what was read, kept and ignored; ``policies`` are its other arguments."""
    reading = Reading(columns or {}, **policies)
    return convert(open_source(name_or_path, split, revision), reading)


def convert(source: RowSource, reading: Reading | None = None) -> tuple[datasets.Dataset, PreferenceReport]:
    """Convert a source of any known shape to canonical rows, one at a time; earlier results are reused from disk.

    Raises:
        PreferenceDataError: with every problem found.
    """
    reading = reading or Reading()
    key = {"rows": source.digest, **asdict(reading)}
    rows, notes = stored(key, lambda writer: _convert(source, reading, writer))
    notes["ignored_columns"] = tuple(notes["ignored_columns"])
    return rows, PreferenceReport(source=source.name, **notes)


def checked(name: str, rows: datasets.Dataset) -> datasets.Dataset:
    """Rows of `load_preferences` as they are, after another check; other data sets converted.

    Args:
        name: name in messages.
        rows: any data set.

    Raises:
        PreferenceDataError: with every problem found.
    """
    if not is_canonical(rows):
        return convert(dataset_source(name, rows))[0]
    problems = [problem for row in rows for problem in row_problems(row["row"], row)]  # pyright: ignore
    if problems:
        raise PreferenceDataError(name, problems, is_set=False)
    return rows


def is_canonical(rows: datasets.Dataset) -> bool:
    """Whether a data set has all columns of `load_preferences`, or of its single answers for SFT."""
    columns = set(rows.column_names)
    return columns.issuperset(PAIR_COLUMNS) or columns.issuperset(set(GROUP_COLUMNS) - {"category"})


def _convert(source: RowSource, reading: Reading, writer: RowWriter) -> dict[str, Any]:
    problems: list[Problem] = []
    columns = scan(source, reading.columns, problems)
    tally = Tally()

    def read() -> Rows:
        # The first pass has already noted unreadable rows.
        for number, row in source.read([]):
            tally.read += 1
            yield number, renamed(row, reading.columns)

    for row in _canonical(columns, read(), problems, reading, tally):
        split = row.pop("split", False)
        if reading.system_prompt:
            row = with_system_prompt(row, reading.system_prompt)
        tally.usable += 1
        if is_unordered(row):
            if reading.unknown_order == "drop":
                tally.dropped_unordered += 1
                continue
            if reading.unknown_order == 0.5:
                tally.filled_unordered += 1
                row = _with_equal_answers(row)
        if is_unknown(row):
            tally.unknown.append(row["row"])
            if reading.unknown_safety == "drop":
                continue
            if isinstance(reading.unknown_safety, int | float):
                probability = float(reading.unknown_safety)
                row = with_flags(row, [probability if flag is None else flag for flag in flags_of(row)])
        if not writer.rows:
            writer.open(columns.features(row))
        tally.keep(row)
        tally.split_prompts += split
        writer.write({name: columns.plain(row.get(name), name) for name in columns.names})
    if reading.unknown_safety in (None, "error") and 0 < len(tally.unknown) < tally.usable - tally.dropped_unordered:
        remedy = "label them, or set unknown_safety to 'drop' or to a probability"
        what = "the safety of an answer is unknown here but known in other rows"
        problems += [Problem(number, None, what, remedy) for number in tally.unknown]
    if problems:
        raise PreferenceDataError(source.name, sorted(problems, key=lambda problem: problem.row or 0))
    if not writer.rows:
        raise PreferenceDataError(source.name, [_nothing_left(tally)])
    return tally.notes() | {
        "shape": columns.shape.name,
        "kept": writer.rows,
        "filled_unknown": len(tally.unknown) if isinstance(reading.unknown_safety, int | float) else 0,
        "duplicates": writer.rows - tally.different,
        "ignored_columns": columns.ignored,
        "cells": dict(sorted(tally.cells.items())) if columns.shape.kind == "pairs" else {},
        "categories": {name: dict(sorted(cells.items())) for name, cells in sorted(tally.categories.items())},
        "dropped_unknown": tally.usable - tally.dropped_unordered - writer.rows,
    }


def _nothing_left(tally: Tally) -> Problem:
    if tally.dropped_unordered:
        return Problem(None, None, "no row has a known order of its answers", "set unknown_order to 0.5")
    if not tally.usable:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in tally.left_out.items())
        what = "no row can be used" + (f" ({reasons})" if reasons else "")
        return Problem(None, None, what, "name a file with at least one usable row")
    remedy = "set unknown_safety to a probability, or label the answers"
    return Problem(None, None, "no row has a known safety for all its answers", remedy)


def _canonical(
    columns: SourceColumns, numbered: Rows, problems: list[Problem], reading: Reading, tally: Tally
) -> Iterator[Row]:
    kind: type | None = None
    converted = _converted_rows(columns, numbered, problems, tally)
    if columns.shape.by_prompt:
        groups = by_prompt(converted, tally.left_out)
        tally.merged = sum(rows - 1 for _, rows, _ in groups)
        converted = ((number, row) for number, _, row in groups)
    for number, row in converted:
        found = list(row_problems(number, row, reading.order_may_be_open))
        if isinstance(row["prompt"], str | list) and kind not in (None, type(row["prompt"])):
            what = "the prompt is a string in some rows and messages in others"
            found.insert(0, Problem(number, "prompt", what, "write all rows alike"))
        problems += found
        if not found:
            kind = type(row["prompt"])
            yield row | {"row": number}


def _converted_rows(columns: SourceColumns, numbered: Rows, problems: list[Problem], tally: Tally) -> Rows:
    for number, row in numbered:
        try:
            converted = _converted(columns, row)
        except RowError as error:
            problems.append(error.at(number))
        except LeftOutError as error:
            tally.left_out[str(error)] += 1
        else:
            tally.left_out.update(converted.pop("left_out", ()))
            yield number, converted


def _converted(columns: SourceColumns, row: Row) -> Row:
    """A canonical row with the optional columns that the source has."""
    own = {name: value for name, value in row.items() if name not in CONTEXT_COLUMNS}
    converted = columns.shape.convert(own | {name: row.get(name) for name in columns.context})
    leave_out_useless(converted)
    check_trained(converted["prompt"], answers_of(converted))
    if "weight" in columns.optional:
        weight = row.get("weight")
        converted["weight"] = 1.0 if weight is None else weight
    carried = (*REWARD_COLUMNS[columns.shape.kind], *TRUNCATED_COLUMNS[columns.shape.kind])
    converted |= {name: row.get(name) for name in carried if name in columns.optional}
    if "tools" in columns.optional and "tools" not in converted:
        tools = row.get("tools")
        converted["tools"] = None if is_blank(tools) else tools_of(tools)
    for name in LABEL_COLUMNS:
        if name in columns.optional:
            converted[name] = label_column(name, row.get(name), converted)
    if converted.get("tools") and not isinstance(converted["prompt"], list):
        raise RowError("tools", "a prompt that is a string has no tools", "write the prompt as messages")
    return converted


def _with_equal_answers(row: Row) -> Row:
    """A row whose answers are equally likely to be the more helpful one."""
    return row | ({"chosen_is_better": 0.5} if is_pair(row) else {"helpfulness": [0.0] * len(row["responses"])})


def count_cells(rows: datasets.Dataset) -> dict[str, int]:
    """Number of pairs in each safety cell, as in `PreferenceReport`; empty if the rows are not pairs."""
    if not is_pair(rows.column_names):
        return {}
    flags: Any = rows.select_columns(["chosen_is_safe", "rejected_is_safe"])
    return dict(sorted(Counter(cell_of(row) for row in flags).items()))
