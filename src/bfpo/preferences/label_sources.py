"""Rows whose labels may be open, with the source of every label."""

from __future__ import annotations

from collections.abc import Mapping

from bfpo.preferences.label_columns import parsed_columns
from bfpo.preferences.loading import inspect_preferences
from bfpo.preferences.reading import Row, read_rows
from bfpo.preferences.source_columns import renamed


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
        The rows, with ``labelled_by`` and ``judged_as`` as objects where the source has them, and ``source``, the
        origin of the row, which is not canonical.

    Raises:
        PreferenceDataError: with every problem.
    """
    dataset, _ = inspect_preferences(
        name_or_path, split=split, revision=revision, columns=columns, unknown_safety="keep"
    )
    written = {number: renamed(row, columns or {}) for number, row in read_rows(name_or_path, split, revision)}
    rows: list[Row] = []
    for row in map(dict, dataset):
        origin = written[row["row"]].get("source")
        own = {name: value for name, value in row.items() if name not in ("labelled_by", "judged_as")}
        rows.append(own | parsed_columns(row) | ({} if origin is None else {"source": str(origin)}))
    return rows
