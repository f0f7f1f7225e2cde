"""Rows whose labels may be open, with the source of every label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from bfpo.preferences.label_columns import parsed_columns
from bfpo.preferences.loading import inspect_preferences
from bfpo.preferences.reading import Row, open_source
from bfpo.preferences.source_columns import renamed
from bfpo.preferences.store import arrow_tables

if TYPE_CHECKING:
    import datasets

_ROWS_AT_ONCE = 1000


def rows_with_sources(
    name_or_path: str, *, split: str = "train", revision: str | None = None, columns: Mapping[str, str] | None = None
) -> Iterator[Row]:
    """Canonical rows that may have open labels, one at a time, after all were checked; arguments of `load_preferences`.

    Returns:
        The rows, with ``labelled_by`` and ``judged_as`` as objects where the source has them, and ``source``, the
        origin of the row, which is not canonical.

    Raises:
        PreferenceDataError: with every problem.
    """
    dataset, report = inspect_preferences(
        name_or_path, split=split, revision=revision, columns=columns, unknown_safety="keep"
    )
    rows = _rows(dataset)
    if "source" not in report.ignored_columns:
        return rows
    written = open_source(name_or_path, split, revision).read([])
    return _with_origins(rows, ((number, renamed(row, columns or {})) for number, row in written))


def _rows(dataset: datasets.Dataset) -> Iterator[Row]:
    for table in arrow_tables(dataset, _ROWS_AT_ONCE):
        for row in table.to_pylist():
            own = {name: value for name, value in row.items() if name not in ("labelled_by", "judged_as")}
            yield own | parsed_columns(row)


def _with_origins(rows: Iterator[Row], written: Iterator[tuple[int, Row]]) -> Iterator[Row]:
    """The rows with their origins; both are in the order of the source, which may have more rows."""
    for row in rows:
        origin = next(original for number, original in written if number == row["row"]).get("source")
        yield row if origin is None else row | {"source": str(origin)}
