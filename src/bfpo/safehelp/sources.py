"""Reading of a task's rows from a file on disk, one file of a Hub data set, or a Hub data set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bfpo.errors import BfpoError
from bfpo.files import file_sha256
from bfpo.preferences.reading import Row, read_rows, text_lines
from bfpo.safehelp.tasks import Task, TaskSource

# Suffixes of a task's file in a data folder, in search order.
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet", ".txt")


@dataclass(frozen=True)
class Resolved:
    """Origin of a task's rows.

    Attributes:
        place: the file, or the name on the Hub.
        revision: the Hub commit; None for a file on disk, or if the cache doesn't record it.
        sha256: SHA-256 of the file; None for a Hub data set.
        rows: number of rows.
        examples_sha256: SHA-256 of the file of solved examples, see `examples_file`; None without one.
    """

    place: str
    revision: str | None
    sha256: str | None
    rows: int
    examples_sha256: str | None = None


class MissingSourceError(BfpoError):
    """The rows of a task can't be loaded.

    Attributes:
        need: the file to provide.
        task: name of the task.
    """

    def __init__(self, task: Task, where: str, problem: str, name: str) -> None:
        source = task.source
        of_what = f" with the rows of {source.hub}" if source and source.hub else ""
        self.task, self.need = task.task, f"{name}{of_what}"
        super().__init__(
            f"{where}, task {task.task!r}: {problem}; name a file{of_what} with --data {task.task}=FILE, or save it as "
            f"{name} in a folder and name the folder with --data-folder"
        )


Read = tuple[list[tuple[int, Row]], Resolved]


def read_source(task: Task, where: str, override: Path | None = None) -> Read:
    """Read a task's rows, numbered from 1, from its source or a given file, with their origin.

    ``where`` is the name of a packaged suite, or a suite's file, to which paths of sources are relative.

    Raises:
        BfpoError: if the rows can't be loaded; the message names a file to provide.
    """
    if override is not None:
        return _read_file(task, where, override, None, None)
    source = task.source
    assert source is not None
    if source.hub is None:
        assert source.file is not None
        return _read_file(task, where, Path(where).parent / source.file, source.sha256, None)
    if source.file is not None:
        from huggingface_hub import hf_hub_download

        with _from_hub(task, where):
            path = Path(hf_hub_download(source.hub, source.file, repo_type="dataset", revision=source.revision))
        return _read_file(task, where, path, source.sha256, _commit(path))
    return _hub_rows(task, where, source)


def file_in(folder: Path, task: Task) -> Path | None:
    """A task's file in a data folder, named after the task or its source (XSTest.jsonl, bbq-All.jsonl)."""
    stems, source = [task.task], task.source or TaskSource()
    if source.hub:
        stems.append("-".join(filter(None, (source.hub.rpartition("/")[2], source.config))))
    names = [f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES]
    names += [Path(source.file).name] if source.file else []
    return next((folder / name for name in names if (folder / name).exists()), None)


def examples_file(file: Path) -> Path:
    """The file of solved examples beside a file of one of lm-eval's tasks."""
    return file.with_name(f"{file.stem}.train{file.suffix}")


def _read_file(task: Task, where: str, path: Path, sha256: str | None, revision: str | None) -> Read:
    if not os.path.isfile(path):
        raise MissingSourceError(task, where, f"no such file: {path}", path.name)
    digest = file_sha256(path)
    if sha256 is not None and digest != sha256:
        raise BfpoError(
            f"{where}, task {task.task!r}: {path} has SHA-256 {digest} and not {sha256}, so it is not the file that "
            f"the task was written for; to use it anyway, name it with --data {task.task}={path.name}"
        )
    if path.suffix == ".txt":
        rows: list[tuple[int, Row]] = [(number, {"text": line}) for number, line in text_lines(path)]
    else:
        rows = read_rows(str(path), "train", None)
    if not rows:
        raise BfpoError(f"{where}, task {task.task!r}: {path} has no rows")
    return rows, Resolved(str(path), revision, digest, len(rows))


def _hub_rows(task: Task, where: str, source: TaskSource) -> Read:
    import datasets

    assert source.hub is not None
    with _from_hub(task, where):
        rows: Any = datasets.load_dataset(source.hub, source.config, split=source.split, revision=source.revision)
    found = _commit(Path(rows.cache_files[0]["filename"])) if rows.cache_files else None
    if source.revision and found and found != source.revision:
        # Offline, datasets uses any cached revision.
        problem = f"the cache has commit {found} of {source.hub} and not {source.revision}, so load that once online"
        raise MissingSourceError(task, where, problem, f"{task.task}.jsonl")
    return list(enumerate(rows, 1)), Resolved(source.hub, found or source.revision, None, len(rows))


def _commit(path: Path) -> str | None:
    """The Hub commit of a cached file, which is a folder name in both caches."""
    return next((part for part in reversed(path.parts) if re.fullmatch(r"[0-9a-f]{40}", part)), None)


@contextmanager
def _from_hub(task: Task, where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the Hub client raises many kinds, which all mean the same to the user
        problem = f"its rows can't be loaded from the Hub ({' '.join(str(error).split())[:200]})"
        raise MissingSourceError(task, where, problem, f"{task.task}.jsonl") from error
