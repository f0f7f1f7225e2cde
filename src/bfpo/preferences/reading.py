"""Readers of files and Hub data sets, which yield rows as dictionaries with their row numbers."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bfpo.errors import did_you_mean, one_line
from bfpo.preferences.public_sets import PUBLIC_SETS
from bfpo.preferences.report_files import artifact_rows, attempts_of
from bfpo.preferences.schema import PreferenceDataError, Problem
from bfpo.preferences.store import rows_digest
from bfpo.preferences.strict_json import UnreadableJsonError, check_json, is_suspicious, load_json, parse_json

if TYPE_CHECKING:
    import datasets

Row = dict[str, Any]
Rows = Iterator[tuple[int, Row]]
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
_BLOCK = 2**20
# Largest line (or CSV cell), and largest file that is read whole, in bytes after decompression.
_LINE, _WHOLE = 2**26, 2**28


@dataclass(frozen=True)
class RowSource:
    """A source that can be read any number of times.

    Attributes:
        name: name in messages.
        digest: SHA-256 of the contents.
        read: function that yields the rows with their 1-based numbers (line numbers in JSONL) and appends the problems
            of unreadable rows to its argument.
    """

    name: str
    digest: str
    read: Callable[[list[Problem]], Rows]


def open_source(name_or_path: str, split: str = "train", revision: str | None = None) -> RowSource:
    """Open a file, a folder that ``save_to_disk`` wrote, a short name of `PUBLIC_SETS`, or a data set on the Hub.

    What is on disk takes precedence; a name that looks like a path is never looked up on the Hub.

    Raises:
        PreferenceDataError: if there is neither.
    """
    path = Path(name_or_path)
    if os.path.isdir(path):
        return dataset_source(name_or_path, _saved(path, split))
    if os.path.exists(path):
        return _file_source(path)
    if path.suffix in (*_SUFFIXES, ".gz") or name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1:
        raise _file_error(name_or_path, "there is no such file", "check the path")
    public = PUBLIC_SETS.get(name_or_path)
    if public is not None:
        # "train" stands for the set's training split, whatever its name.
        own_split = public.split if split == "train" else split
        return dataset_source(public.hub, _load_from_hub(public.hub, own_split, revision or public.revision))
    return dataset_source(name_or_path, _load_from_hub(name_or_path, split, revision))


def dataset_source(name: str, rows: datasets.Dataset) -> RowSource:
    """A source over a loaded data set."""

    def read(_: list[Problem]) -> Rows:
        for number, row in enumerate(rows, start=1):
            yield number, _of_arrow(row)  # pyright: ignore[reportArgumentType]

    return RowSource(name, rows_digest(rows), read)


def read_rows(name_or_path: str, split: str, revision: str | None) -> list[tuple[int, Row]]:
    """All rows of a source in memory, with their numbers.

    Raises:
        PreferenceDataError: if the source doesn't exist or can't be read; with every unreadable row.
    """
    source = open_source(name_or_path, split, revision)
    problems: list[Problem] = []
    rows = list(source.read(problems))
    if problems:
        raise PreferenceDataError(source.name, problems)
    return rows


def is_csv(name: str) -> bool:
    """Whether a file is CSV, in which every cell is text."""
    return name.removesuffix(".gz").lower().endswith(".csv")


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that aren't blank, with their numbers.

    Raises:
        PreferenceDataError: if the file can't be read.
    """
    try:
        # Not splitlines, which also splits at form feeds and at separators that Unicode has for lines in a text.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise _file_error(str(path), f"it can't be read ({error.strerror})", "check its permissions") from error
    except UnicodeDecodeError as error:
        raise _file_error(str(path), f"byte {error.start} is not UTF-8", "save the file as UTF-8") from error
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _file_source(path: Path) -> RowSource:
    inner = Path(path.stem) if path.suffix == ".gz" else path
    readers: dict[str, Callable[[str, IO[bytes], list[Problem]], Rows]] = {
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".json": _json,
        ".csv": _csv,
        ".parquet": _parquet,
    }
    reader = readers.get(inner.suffix.lower())
    if reader is None:
        remedy = f"use one of {', '.join(_SUFFIXES)}, or these with .gz"
        raise _file_error(str(path), f"the file type {inner.suffix!r} is not supported", remedy)

    def read(problems: list[Problem]) -> Rows:
        found = 0
        try:
            opened: IO[bytes] = gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115  # pyright: ignore
            with opened:
                for row in reader(str(path), opened, problems):
                    found += 1
                    yield row
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            what = f"it is not a complete gzip file ({error})"
            raise _file_error(str(path), what, "download or compress it again") from error
        if not found and not problems:
            raise _file_error(str(path), "it has no rows", "name a file with at least one row")

    digest = hashlib.sha256(inner.suffix.encode())
    blank = True
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                blank = blank and not block.strip()
                digest.update(block)
    except OSError as error:
        raise _file_error(str(path), f"it can't be read ({error.strerror})", "check its permissions") from error
    if blank:
        raise _file_error(str(path), "it is empty", "name a file with at least one row")
    return RowSource(str(path), digest.hexdigest(), attempts_of(read) if reader is _jsonl else read)


def _jsonl(source: str, file: IO[bytes], problems: list[Problem]) -> Rows:
    for number, content in enumerate(_lines(file), start=1):
        if content is None:
            what = f"the line is longer than {_LINE // 2**20} MiB"
            problems.append(Problem(number, None, what, "write one record per line"))
            return
        if not content.strip():
            continue
        try:
            text = _decoded(content, first=number == 1)
            value = parse_json(text)
        except UnicodeDecodeError as error:
            problems.append(Problem(number, None, *_not_utf8(error.start)))
        except json.JSONDecodeError as error:
            what = f"the line is not JSON ({error.msg} at character {error.colno})"
            problems.append(Problem(number, None, what, "fix the line"))
        except UnreadableJsonError as error:
            problems.append(Problem(number, None, str(error), "fix the line"))
        else:
            yield from _checked(number, value, problems, is_suspicious(text))


def _checked(number: int, value: Any, problems: list[Problem], suspicious: bool) -> Rows:
    """The row, unless it can't be used."""
    if not isinstance(value, dict):
        what = f"the row is a {type(value).__name__}, not an object"
        problems.append(Problem(number, None, what, "write {column: value} objects"))
        return
    flaws = [flaw for flaw in (_flaw(number, *cell) for cell in value.items()) if flaw] if suspicious else []
    problems += flaws
    if not flaws:
        yield number, value


def _flaw(number: int, column: str, value: Any) -> Problem | None:
    try:
        check_json([column, value])
    except UnreadableJsonError as error:
        return Problem(number, column.encode(errors="replace").decode(), str(error), "correct it, or remove the row")
    return None


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is too long, after which nothing is read."""
    while line := file.readline(_LINE + 1):
        yield line if len(line) <= _LINE else None


def _decoded(content: bytes, *, first: bool) -> str:
    return content.decode("utf-8-sig" if first else "utf-8")


def _not_utf8(byte: int) -> tuple[str, str]:
    return f"byte {byte} of the line is not UTF-8", "save the file as UTF-8"


def _json(source: str, file: IO[bytes], problems: list[Problem]) -> Rows:
    """Rows of a JSON list of objects, which is read whole."""
    content = _read_whole(source, file)
    try:
        text = _decoded(content, first=True)
        value = parse_json(text)
    except UnicodeDecodeError as error:
        line_start = content.rfind(b"\n", 0, error.start) + 1
        line = content.count(b"\n", 0, line_start) + 1
        raise PreferenceDataError(source, [Problem(line, None, *_not_utf8(error.start - line_start))]) from error
    except json.JSONDecodeError as error:
        remedy = "rename it to .jsonl if it has one object per line" if error.msg == "Extra data" else "fix the file"
        raise _file_error(source, f"it is not JSON ({error.msg} in line {error.lineno})", remedy) from error
    except UnreadableJsonError as error:
        raise _file_error(source, str(error), "fix the file") from error
    value = artifact_rows(value)
    if not isinstance(value, list):
        raise _file_error(source, f"it holds a {type(value).__name__}, not a list", "write a list of objects")
    suspicious = is_suspicious(text)
    for number, row in enumerate(value, start=1):
        yield from _checked(number, row, problems, suspicious)


def _read_whole(source: str, file: IO[bytes]) -> bytes:
    content = file.read(_WHOLE + 1)
    if len(content) > _WHOLE:
        what = f"it is larger than {_WHOLE // 2**20} MiB, and this format is read whole"
        raise _file_error(source, what, "write it as .jsonl")
    return content


# Text cells that mean a flag or null; a cell that starts with "[" is parsed as JSON.
_CELLS: dict[str, Any] = {"": None, "true": True, "false": False, "yes": True, "no": False}

_SEPARATORS = {";": "semicolons", "\t": "tabs"}


def _csv(source: str, file: IO[bytes], problems: list[Problem]) -> Rows:
    csv.field_size_limit(_LINE)
    reader = csv.DictReader(_csv_lines(file), strict=True)
    try:
        names = list(reader.fieldnames or ())
    except UnicodeDecodeError as error:
        raise PreferenceDataError(source, [Problem(None, None, *_not_utf8(error.start))]) from error
    except csv.Error as error:
        raise _file_error(source, f"it is not CSV ({error})", "write it with a line end after every row") from error
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise _file_error(source, f"it has two columns {twice!r}", "rename one of them, or remove it")
    if len(names) == 1 and (found := [name for mark, name in _SEPARATORS.items() if mark in names[0]]):
        raise _file_error(source, f"its columns are separated by {found[0]}", "save it with commas")
    number = 0
    try:
        for number, cells in enumerate(reader, start=1):
            if None in cells or None in cells.values():
                what = f"the row doesn't have {len(reader.fieldnames or [])} cells"
                problems.append(Problem(number, None, what, "quote commas and line breaks"))
            else:
                yield number, {str(name): _cell(name, cell) for name, cell in cells.items()}
    except UnicodeDecodeError as error:
        problems.append(Problem(number + 1, None, *_not_utf8(error.start)))
    except csv.Error as error:
        problems.append(Problem(number + 1, None, f"the row is not CSV ({error})", "quote commas and line breaks"))


def _csv_lines(file: IO[bytes]) -> Iterator[str]:
    for number, line in enumerate(_lines(file)):
        if line is None:
            raise csv.Error(f"a line is longer than {_LINE // 2**20} MiB")
        yield _decoded(line, first=number == 0)


# Columns of lists; in others, a list that is none of messages is a text.
_LISTS = {
    "responses", "helpfulness", "is_safe", "reward", "harm", "category", "categories", "history", "generations",
    "ratings", "truncated",
}  # fmt: skip


def _cell(name: str | None, cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    is_object = name is not None and name.endswith("_harm_category")
    if cell.lstrip()[:1] in ("[", "{" if is_object else "["):
        try:
            found = load_json(cell)
        except (json.JSONDecodeError, UnreadableJsonError):
            return cell
        are_messages = bool(found) and all(isinstance(one, dict) for one in found)
        return found if are_messages or is_object or name in _LISTS else cell
    if name is not None and _is_number(name):
        return parse_cell(cell)
    return cell or None


def with_our_name(name: str, value: Any) -> Any:
    """A value whose column is renamed: in a column of flags, numbers or lists, what a text in CSV stands for."""
    return _cell(name, value) if name in _LISTS or _is_number(name) else value


def _is_number(name: str) -> bool:
    """Whether a column has flags or numbers."""
    ends = ("_id", "_better", "_reward", "_severity_level", "_truncated")
    return "is_" in name or name == "weight" or name.endswith(ends)


def parse_cell(cell: str) -> Any:
    """The flag, number or null that a cell of CSV stands for; other texts as they are."""
    folded = cell.strip().lower()
    if folded in _CELLS:
        return _CELLS[folded]
    try:
        return float(folded) if "." in folded or "e" in folded or "n" in folded else int(folded)
    except ValueError:
        return cell


def _parquet(source: str, file: IO[bytes], problems: list[Problem]) -> Rows:
    import pyarrow
    import pyarrow.parquet

    # Parquet is read from the end, which a gzip stream can't seek to.
    seekable = file if not isinstance(file, gzip.GzipFile) else io.BytesIO(_read_whole(source, file))
    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(seekable).iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield number, _of_arrow(row)
    # Names and texts that are not UTF-8 are found only when they are read.
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _file_error(source, f"it is not Parquet ({str(error).splitlines()[0]})", "write it again") from error


def _of_arrow(row: Mapping[str, Any]) -> Row:
    """A row without the nulls that Arrow puts into objects for fields that only other rows' objects have."""
    return {name: _without_nulls(value) if isinstance(value, list | dict) else value for name, value in row.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value


def _saved(folder: Path, split: str) -> datasets.Dataset:
    """The set that ``save_to_disk`` of a Dataset or DatasetDict wrote; ``split`` chooses from the latter."""
    import datasets

    if not any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise _file_error(str(folder), "it is a folder that save_to_disk didn't write", "name one of the files in it")
    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # a damaged folder raises many kinds
        raise _file_error(str(folder), f"it can't be loaded ({one_line(error)})", "write it again") from error
    if isinstance(found, datasets.Dataset):
        return found
    splits = {str(name): rows for name, rows in found.items()}
    if split not in splits:
        what = f"it has no split {split!r}{did_you_mean(split, splits)}"
        raise _file_error(str(folder), what, f"choose from {', '.join(splits)}")
    return splits[split]


def _load_from_hub(name: str, split: str, revision: str | None) -> datasets.Dataset:
    import datasets

    try:
        return datasets.load_dataset(name, split=split, revision=revision)  # pyright: ignore[reportReturnType]
    except Exception as error:  # the Hub client raises many kinds, which all mean the same to the user
        what = f"no such file{did_you_mean(name, PUBLIC_SETS)}, and it can't be loaded from the Hub ({one_line(error)})"
        raise _file_error(name, what, "check name, split and revision") from error


def _file_error(source: str, what: str, remedy: str) -> PreferenceDataError:
    return PreferenceDataError(source, [Problem(None, None, what, remedy)])
