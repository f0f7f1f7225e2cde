"""Disk cache of rows: content-addressed Arrow files, memory-mapped when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bfpo.config import read_json
from bfpo.files import cache_folder, created_folder, whole_folder

if TYPE_CHECKING:
    import datasets

_ROWS_AT_ONCE = 1000
_NOTES, _ROWS = "notes.json", "rows.arrow"


def store_folder() -> Path:
    """Folder of the cache: ``data`` in $BFPO_CACHE or ~/.cache/bfpo."""
    return cache_folder() / "data"


class RowWriter:
    """Writes rows to an Arrow file in batches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._waiting: list[Mapping[str, Any]] = []
        self._file: Any = None
        self._schema: Any = None

    def open(self, features: datasets.Features) -> None:
        """Open the file; call it before the first row."""
        import pyarrow

        self._schema = features.arrow_schema
        self._file = pyarrow.ipc.new_stream(str(self.path), self._schema)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row with at least the columns of ``features``; other columns are ignored."""
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) == _ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write the remaining rows and close the file."""
        if self._file is not None:
            self._flush()
            self._file.close()

    def _flush(self) -> None:
        import pyarrow

        columns = {name: [row[name] for row in self._waiting] for name in self._schema.names}
        self._file.write_batch(pyarrow.RecordBatch.from_pydict(columns, schema=self._schema))
        self._waiting.clear()


def stored(
    key: Mapping[str, Any], build: Callable[[RowWriter], dict[str, Any]]
) -> tuple[datasets.Dataset, dict[str, Any]]:
    """Rows and notes about them, from the cache or made by ``build``.

    Args:
        key: everything that the rows depend on, except this room's code, which is added.
        build: function that writes at least one row and returns JSON-compatible notes; if it raises, nothing is stored.

    Returns:
        The rows, memory-mapped, and the notes.
    """
    from datasets import Dataset

    digest = hashlib.sha256(json.dumps([_code_digest(), key], sort_keys=True).encode()).hexdigest()
    folder = store_folder() / digest[:32]
    if not (folder / _NOTES).exists():
        created_folder(folder.parent)
        with whole_folder(folder) as partial:
            writer = RowWriter(partial / _ROWS)
            notes = build(writer)
            writer.close()
            (partial / _NOTES).write_text(json.dumps(notes) + "\n", encoding="utf-8")
    notes = read_json(folder / _NOTES, dict[str, Any], "notes about stored rows", f"delete {folder}")
    return Dataset.from_file(str(folder / _ROWS)), notes


def arrow_tables(rows: datasets.Dataset, rows_at_once: int = _ROWS_AT_ONCE) -> Iterator[Any]:
    """The rows as `pyarrow.Table` batches, without copying memory-mapped rows."""
    return rows.with_format("arrow").iter(batch_size=rows_at_once)


def rows_digest(rows: datasets.Dataset) -> str:
    """Digest of the rows' contents, independent of where they are stored."""
    digest = hashlib.sha256()
    for table in arrow_tables(rows):
        digest.update(repr(sorted((field.name, str(field.type)) for field in table.schema)).encode())
        # Arrow's own bytes would differ between layouts of the same values.
        digest.update(json.dumps(table.to_pydict(), sort_keys=True, default=repr).encode())
    return digest.hexdigest()


@cache
def _code_digest() -> str:
    """Digest of this room's code, so that a change of the code invalidates the cache."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
