"""Records that are on disk as soon as their batch is done, and survive a kill at any moment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from bfpo.errors import BfpoError
from bfpo.safehelp.records import GenerationRecord, LikelihoodRecord, encode_record

Key = tuple[str, str, int]
_Record = TypeVar("_Record", GenerationRecord, LikelihoodRecord)


class Journal(Generic[_Record]):
    """A file of records that grows by whole batches.

    What a kill leaves is a file whose end may hold a part of a batch, and of a line. The part of a line is cut off at
    once; the part of a batch is cut off when the batch comes again, so that the file ends as if nothing had happened.

    Attributes:
        path: the file, one record a line.
        done: where in the file each record begins, by its key.
        cut: bytes of a torn last line that were cut off.
    """

    def __init__(self, path: Path, read: Callable[[Path], list[_Record]]) -> None:
        self.path, self._read = path, read
        self.done: dict[Key, int] = {}
        self.cut = 0
        if path.exists():
            self.cut = _cut_torn_line(path)
            for record, offset in zip(read(path), _line_offsets(path), strict=True):
                if self.done.setdefault(key_of(record), offset) != offset:
                    task, item, sample = key_of(record)
                    raise BfpoError(f"{path}: holds answer {sample} to {task}/{item} twice; name another folder")

    def append(self, batch: Sequence[_Record]) -> None:
        """Add one batch, and return when it is on disk.

        Raises:
            BfpoError: if the file goes on after records of this batch with those of another: it is of another plan.
        """
        if not batch:
            return
        again = [self.done[key] for key in map(key_of, batch) if key in self.done]
        if again:
            self._cut_back(min(again), {key_of(record) for record in batch})
        lines = [encode_record(record).encode() for record in batch]
        offset = self._write(b"".join(lines))
        for record, line in zip(batch, lines, strict=True):
            self.done[key_of(record)] = offset
            offset += len(line)

    def _write(self, content: bytes) -> int:
        """Add bytes, and return where they begin when they are on disk."""
        with self.path.open("ab") as file:
            offset = file.tell()
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return offset

    def records(self) -> list[_Record]:
        """Everything that is in the file."""
        return self._read(self.path)

    def _cut_back(self, offset: int, own: set[Key]) -> None:
        for key, start in list(self.done.items()):
            if start >= offset:
                if key not in own:
                    raise BfpoError(
                        f"{self.path}: its batches were planned otherwise; name another folder, or remove it"
                    )
                del self.done[key]
        os.truncate(self.path, offset)


def key_of(record: GenerationRecord | LikelihoodRecord) -> Key:
    """Task, item and number of the answer."""
    return (record.task, record.item, record.sample if isinstance(record, GenerationRecord) else 0)


def _cut_torn_line(path: Path) -> int:
    """Cut off what follows the last line's end, and say how many bytes it was."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return len(content) - whole


def _line_offsets(path: Path) -> Iterator[int]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            yield offset
            offset += len(line)
