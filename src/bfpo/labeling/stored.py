"""Rows and numbers in temporary files, so that any number of them can be read several times without being in memory."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import IO, overload

import numpy as np

from bfpo.errors import BfpoError, RunError
from bfpo.preferences.reading import Row

# Bytes of rows, and numbers, that are in memory at once.
_BLOCK, NUMBERS_AT_ONCE = 2**20, 2**16


def text_digest(text: str) -> int:
    """A number from 0 to 2^64 - 1 that stands for a text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


def stored_rows(rows: Iterable[Row], folder: Path | None) -> Sequence[Row]:
    """The rows in a temporary file in a folder, or in memory if it is None; stored ones as they are."""
    if isinstance(rows, StoredRows):
        return rows
    return list(rows) if folder is None else StoredRows(rows, folder)


def stored_numbers(numbers: Iterable[float], folder: Path | None) -> np.ndarray:
    """[N] numbers in a temporary file in a folder, mapped into memory, or in memory if it is None.

    Raises:
        BfpoError: if the folder can't be written to.
        RunError: if the disk is full.
    """
    rest = iter(numbers)
    if folder is None:
        return np.fromiter(rest, dtype=float)
    with _temporary_file(folder) as file:
        while block := array("d", islice(rest, NUMBERS_AT_ONCE)):
            _write(file, block.tobytes(), folder)
        _write(file, b"", folder)
        # The map outlives the file; an empty file can't be mapped.
        return np.asarray(np.memmap(file, dtype=float, mode="r+")) if file.tell() else np.zeros(0)


def _temporary_file(folder: Path) -> IO[bytes]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise BfpoError(f"{folder}: can't be written to ({error.strerror}); name an output elsewhere") from error


def _write(file: IO[bytes], content: bytes, folder: Path) -> None:
    """Write, or flush what was written if there is nothing more."""
    try:
        file.write(content) if content else file.flush()
    except OSError as error:
        raise RunError(f"{folder}: can't be written to ({error.strerror}); free space and rerun") from error


class StoredRows(Sequence[Row]):
    """Rows as JSON lines in a temporary file; of each, 8 bytes stay in memory. The file is gone with the object.

    Args:
        rows: the rows, of JSON's types, which are read once.
        folder: folder for the file, which is created if missing.

    Raises:
        BfpoError: if the folder can't be written to.
        RunError: if the disk is full.
    """

    def __init__(self, rows: Iterable[Row], folder: Path) -> None:
        self._file = _temporary_file(folder)
        self._starts = array("q", [0])
        for row in rows:
            line = json.dumps(row).encode() + b"\n"
            _write(self._file, line, folder)
            self._starts.append(self._starts[-1] + len(line))
        _write(self._file, b"", folder)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return json.loads(self._read(self._starts[at], self._starts[at + 1]))

    def __iter__(self) -> Iterator[Row]:
        at = 0
        while at < len(self):
            start, first = self._starts[at], at
            while at < len(self) and (at == first or self._starts[at + 1] - start <= _BLOCK):
                at += 1
            # Each block is sought anew, because several iterations may alternate.
            for line in self._read(start, self._starts[at]).splitlines():
                yield json.loads(line)

    def _read(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        return self._file.read(end - start)
