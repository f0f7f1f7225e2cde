"""Rows from files and Hub data sets, as plain dictionaries with their row numbers."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bfpo.errors import did_you_mean
from bfpo.preferences.public_sets import PUBLIC_SETS
from bfpo.preferences.schema import PreferenceDataError, Problem

Row = dict[str, Any]
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")


def read_rows(name_or_path: str, split: str, revision: str | None) -> list[tuple[int, Row]]:
    """All rows of a source with their 1-based numbers (in JSONL, of the line).

    A file on disk wins over a Hub data set of the same name, and short names of `PUBLIC_SETS` stand for Hub data sets;
    what looks like a path is never asked of the Hub.

    Raises:
        PreferenceDataError: if it doesn't exist or can't be read; every unreadable line is named.
    """
    path = Path(name_or_path)
    if path.is_dir():
        raise _file_error(name_or_path, "it is a directory", "name one of the files in it")
    if path.exists():
        return _read_file(path)
    if path.suffix in (*_SUFFIXES, ".gz") or name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1:
        raise _file_error(name_or_path, "there is no such file", "check the path")
    public = PUBLIC_SETS.get(name_or_path)
    if public is not None:
        # "train" means the split to train on, whatever the set calls it.
        own_split = public.split if split == "train" else split
        return _read_hub(public.hub, own_split, revision or public.revision)
    return _read_hub(name_or_path, split, revision)


def _read_file(path: Path) -> list[tuple[int, Row]]:
    inner = Path(path.stem) if path.suffix == ".gz" else path
    readers: dict[str, Callable[[str, bytes], list[tuple[int, Row]]]] = {
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".json": _json,
        ".csv": _csv,
        ".parquet": _parquet,
    }
    reader = readers.get(inner.suffix.lower())
    if reader is None:
        raise _file_error(
            str(path),
            f"the ending {inner.suffix!r} is not known",
            f"use one of {', '.join(_SUFFIXES)}, or these with .gz",
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _file_error(str(path), f"it can't be read ({error.strerror})", "check its permissions") from error
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise _file_error(
                str(path), f"it is no complete gzip file ({error})", "download or compress it again"
            ) from error
    if not content.strip():
        raise _file_error(str(path), "it is empty", "name a file with at least one row")
    rows = reader(str(path), content)
    if not rows:
        raise _file_error(str(path), "it has no rows", "name a file with at least one row")
    return rows


def _text(source: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise PreferenceDataError(
            source, [Problem(line, None, f"byte {error.start} is not UTF-8", "save the file as UTF-8")]
        ) from error


def _jsonl(source: str, content: bytes) -> list[tuple[int, Row]]:
    rows: list[tuple[int, Row]] = []
    problems: list[Problem] = []
    for number, line in enumerate(_text(source, content).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(
                Problem(number, None, f"the line is not JSON ({error.msg} at character {error.colno})", "mend the line")
            )
            continue
        if isinstance(value, dict):
            rows.append((number, value))
        else:
            problems.append(_not_an_object(number, value))
    if problems:
        raise PreferenceDataError(source, problems)
    return rows


def _json(source: str, content: bytes) -> list[tuple[int, Row]]:
    text = _text(source, content)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        remedy = "rename it to .jsonl if it has one object a line" if error.msg == "Extra data" else "mend the file"
        raise _file_error(source, f"it is not JSON ({error.msg} in line {error.lineno})", remedy) from error
    if not isinstance(value, list):
        raise _file_error(source, f"it holds a {type(value).__name__}, not a list", "write a list of objects")
    problems = [_not_an_object(at, row) for at, row in enumerate(value, start=1) if not isinstance(row, dict)]
    if problems:
        raise PreferenceDataError(source, problems)
    return list(enumerate(value, start=1))


def _not_an_object(row: int, value: Any) -> Problem:
    return Problem(row, None, f"the row is a {type(value).__name__}, not an object", "write {column: value} objects")


# Cells are text: these mean a flag, a number or nothing. JSON is read where a cell holds a list.
_CELLS: dict[str, Any] = {"": None, "true": True, "false": False}


def _csv(source: str, content: bytes) -> list[tuple[int, Row]]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(_text(source, content), newline=""), strict=True)
    rows: list[tuple[int, Row]] = []
    problems: list[Problem] = []
    try:
        for number, cells in enumerate(reader, start=1):
            if None in cells or None in cells.values():
                problems.append(
                    Problem(
                        number, None, f"the row has not {len(reader.fieldnames or [])} cells", "quote commas and breaks"
                    )
                )
            rows.append((number, {str(name): _cell(name, cell) for name, cell in cells.items()}))
    except csv.Error as error:
        problems.append(Problem(len(rows) + 1, None, f"the row is not CSV ({error})", "quote commas and line breaks"))
    if problems:
        raise PreferenceDataError(source, problems)
    return rows


def _cell(name: str | None, cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    if name is not None and ("is_" in name or name.endswith(("_id", "_better"))):
        folded = cell.strip().lower()
        if folded in _CELLS:
            return _CELLS[folded]
        try:
            return float(folded) if "." in folded or "e" in folded or "n" in folded else int(folded)
        except ValueError:
            return cell
    if cell.lstrip()[:1] == "[":
        try:
            return json.loads(cell)
        except json.JSONDecodeError:
            return cell
    return cell if cell else None


def _parquet(source: str, content: bytes) -> list[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError) as error:
        raise _file_error(source, f"it is no parquet file ({str(error).splitlines()[0]})", "write it again") from error
    return list(enumerate(table.to_pylist(), start=1))


def _read_hub(name: str, split: str, revision: str | None) -> list[tuple[int, Row]]:
    import datasets

    try:
        rows = datasets.load_dataset(name, split=split, revision=revision)
    except Exception as error:  # the Hub client raises many kinds, which all mean the same to the user
        reason = " ".join(str(error).split())[:200]
        raise _file_error(
            name,
            f"no such file{did_you_mean(name, PUBLIC_SETS)}, and it can't be loaded from the Hub ({reason})",
            "check name, split and revision",
        ) from error
    return list(enumerate(rows, start=1))  # pyright: ignore


def _file_error(source: str, what: str, remedy: str) -> PreferenceDataError:
    return PreferenceDataError(source, [Problem(None, None, what, remedy)])
