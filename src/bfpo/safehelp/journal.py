"""Files of records that are synced to disk after every batch and survive a kill at any moment."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Generic, TypeVar

from bfpo.errors import BfpoError
from bfpo.files import write_lines
from bfpo.safehelp.records import GenerationRecord, LikelihoodRecord, encode_record

Key = tuple[str, str, int]
_Record = TypeVar("_Record", GenerationRecord, LikelihoodRecord)


class Journal(Generic[_Record]):
    """A file of records that grows by whole batches.

    A kill may leave an incomplete batch and an incomplete line at the end. The line is removed on opening; the batch is
    removed when it is appended again, so the final file is the same as without the kill.

    Attributes:
        path: the file, with one record per line.
        done: offset of each record in the file, by its key.
        cut: number of bytes removed with an incomplete last line.
    """

    def __init__(self, path: Path, read: Callable[[Path], list[_Record]]) -> None:
        self.path, self._read = path, read
        self.done: dict[Key, int] = {}
        self.cut = 0
        if path.exists():
            self.cut = _cut_torn_line(path)
            self._index()

    def _index(self) -> None:
        with self.path.open("rb") as file:
            offsets = [0, *accumulate(map(len, file))][:-1]
        self.done = {}
        for record, offset in zip(self.records(), offsets, strict=True):
            if self.done.setdefault(key_of(record), offset) != offset:
                task, item, sample = key_of(record)
                raise BfpoError(f"{self.path}: contains answer {sample} to {task}/{item} twice; name another folder")

    def append(self, batch: Sequence[_Record]) -> None:
        """Append one batch and sync it to disk.

        Raises:
            BfpoError: if records of another batch follow those of this batch: the batches were planned differently.
        """
        if not batch:
            return
        again = [self.done[key] for key in map(key_of, batch) if key in self.done]
        if again:
            self._cut_back(min(again), {key_of(record) for record in batch})
        lines = [encode_record(record).encode() for record in batch]
        offset = self.path.stat().st_size if self.path.exists() else 0
        self._write(b"".join(lines))
        for record, line in zip(batch, lines, strict=True):
            self.done[key_of(record)] = offset
            offset += len(line)

    def replace(self, records: Sequence[_Record]) -> None:
        """Put records in the places of those with the same keys, in one atomic write."""
        new = {key_of(record): record for record in records}
        write_lines(self.path, (encode_record(new.get(key_of(record), record)) for record in self.records()))
        self._index()

    def _write(self, content: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> list[_Record]:
        """All records in the file."""
        return self._read(self.path)

    def _cut_back(self, offset: int, own: set[Key]) -> None:
        for key, start in list(self.done.items()):
            if start >= offset:
                if key not in own:
                    raise BfpoError(
                        f"{self.path}: its batches were planned differently; name another folder, or remove it"
                    )
                del self.done[key]
        os.truncate(self.path, offset)


def key_of(record: GenerationRecord | LikelihoodRecord) -> Key:
    """The record's task, item and number of the sample."""
    return (record.task, record.item, record.sample if isinstance(record, GenerationRecord) else 0)


def _cut_torn_line(path: Path) -> int:
    """Remove an incomplete last line, and return its number of bytes."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return len(content) - whole
