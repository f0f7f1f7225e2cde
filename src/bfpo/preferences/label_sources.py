"""Sources of labels: rows that tell people's labels from those that a judge filled in earlier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bfpo.preferences.checking import flags_of
from bfpo.preferences.loading import inspect_preferences
from bfpo.preferences.reading import Row, read_rows
from bfpo.preferences.schema import PreferenceDataError, Problem
from bfpo.preferences.source_columns import renamed
from bfpo.preferences.strict_json import load_json

PEOPLE, JUDGE, UNPARSED, UNKNOWN = "people", "judge", "unparsed", "unknown"
_NAMES = (PEOPLE, JUDGE, UNPARSED, UNKNOWN)
_REMEDY = "keep it as 'bfpo label' wrote it, or leave the column out if all labels are people's"


def rows_with_sources(
    name_or_path: str, *, split: str = "train", revision: str | None = None, columns: Mapping[str, str] | None = None
) -> list[Row]:
    """Canonical rows that may have open labels.

    Args:
        name_or_path: a file or Hub data set of preferences.
        split: split of a Hub data set.
        revision: revision of a Hub data set.
        columns: columns to rename, theirs to ours.

    Returns:
        The rows, with two columns that are not canonical where the source has them: ``labelled_by``, the source of
        every label in a file that `bfpo label` wrote, and ``source``, the origin of the row.

    Raises:
        PreferenceDataError: with every problem.
    """
    dataset, _ = inspect_preferences(
        name_or_path, split=split, revision=revision, columns=columns, unknown_safety="keep"
    )
    written = {number: renamed(row, columns or {}) for number, row in read_rows(name_or_path, split, revision)}
    rows: list[Row] = []
    problems: list[Problem] = []
    for row in map(dict, dataset):
        own = written[row["row"]]
        if own.get("source") is not None:
            row["source"] = str(own["source"])
        if own.get("labelled_by") is not None:
            by = _parsed(own["labelled_by"])
            if not _describes(by, row):
                what = f"{str(own['labelled_by'])[:60]!r} doesn't name the sources of this row's labels"
                problems.append(Problem(row["row"], "labelled_by", what, _REMEDY))
            row["labelled_by"] = by
        rows.append(row)
    if problems:
        raise PreferenceDataError(name_or_path, problems, is_set=False)
    return rows


def flags_by_judge(row: Row) -> list[bool]:
    """Whether a judge filled in the flag of each answer; all other known flags are people's."""
    by = row.get("labelled_by")
    if by is None:
        return [False] * len(flags_of(row))
    names = [by["chosen"], by["rejected"]] if "chosen" in row else by["answers"]
    return [name == JUDGE for name in names]


def order_by_judge(row: Row) -> bool:
    """Whether a judge filled in a pair's order."""
    return (row.get("labelled_by") or {}).get("order") == JUDGE


def _parsed(value: Any) -> Any:
    """The value itself, or what its JSON text says (in CSV)."""
    if not isinstance(value, str):
        return value
    try:
        return load_json(value)
    except ValueError:
        return value


def _describes(by: Any, row: Row) -> bool:
    if not isinstance(by, Mapping):
        return False
    if "chosen" in row:
        return all(by.get(name) in _NAMES for name in ("chosen", "rejected", "order"))
    names = by.get("answers")
    return isinstance(names, list) and len(names) == len(flags_of(row)) and all(name in _NAMES for name in names)
