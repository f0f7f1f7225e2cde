"""Atomic writes of files and folders, safe against kills and concurrent writers."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bfpo.errors import BfpoError, RunError

# Errors of a disk without room.
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Context with a unique temporary path that replaces ``path`` if the block ends without an error.

    Creates missing parent folders. After an error, ``path`` is unchanged and the temporary file is removed.

    Raises:
        BfpoError: if the file can't be written.
        RunError: if the disk is full.
    """
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        # Sync before renaming, so that the file is complete even after a power failure.
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _failure(error, path, "written", "check its folder's permissions and free space") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def created_folder(path: Path) -> Path:
    """The folder, created if missing.

    Raises:
        BfpoError: if it can't be created.
        RunError: if the disk is full.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _failure(error, path, "created", "name an output elsewhere") from error
    return path


def _failure(error: OSError, path: Path, what: str, remedy: str) -> BfpoError | RunError:
    kind = RunError if error.errno in FULL else BfpoError
    return kind(f"{path}: can't be {what} ({error.strerror or error}); {remedy}")


@contextmanager
def sole_user(folder: Path) -> Iterator[Path]:
    """Context in which no other process of this machine is using a folder, which it gives.

    A missing folder is created, and removed again if it is empty at the end. A file system without locks is named in a
    warning.

    Raises:
        BfpoError: if one is, or the folder can't be created.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        yield created_folder(folder)
        return
    is_new = not folder.exists()
    descriptor = os.open(created_folder(folder), os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BfpoError(
                f"{folder}: another process is using this folder; wait for it, or name another folder"
            ) from None
        except OSError as error:
            what = f"this file system has no locks ({error.strerror}), so that a second process wouldn't be noticed"
            warnings.warn(f"{folder}: {what}", stacklevel=3)
        yield folder
    finally:
        os.close(descriptor)
        if is_new:
            with suppress(OSError):
                folder.rmdir()


def check_exists(path: str | Path, otherwise: str = "there is no such file; check the path") -> None:
    """Refuse a file to read that doesn't exist; to be called before imports and models that take long to load.

    Raises:
        BfpoError: if it doesn't.
    """
    if not os.path.exists(path):
        raise BfpoError(f"{path}: {otherwise}")


def check_not_overwritten(output: Path, read: Iterable[tuple[str | Path | None, str]]) -> None:
    """Refuse an output that is one of the files that are read, given with what each of them is; None is not a file.

    Raises:
        BfpoError: if it is.
    """
    for name, what in read if output.exists() else ():
        # A judge's name may have its file after a colon.
        paths = (str(name or ""), str(name or "").partition(":")[2])
        if any(os.path.exists(path) and output.samefile(path) for path in paths):
            raise BfpoError(f"{output}: this would overwrite {what}; name another file")


def check_replaceable(path: Path, read: Callable[[Path], object], what: str) -> None:
    """Refuse an output that exists already and isn't ``what``, such as "a dial", which ``read`` reads or fails to.

    Raises:
        BfpoError: if it is something else.
    """
    if not path.exists():
        return
    try:
        read(path)
    except BfpoError as error:
        raise BfpoError(
            f"{path}: this would overwrite a file that is not {what}; name another, or move it away"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically; see `whole_file`."""
    write_lines(path, (text,))


def write_json(path: Path, value: Any, **options: Any) -> None:
    """Write a value as indented JSON, with further options of `json.dumps`; see `whole_file`."""
    write_text(path, json.dumps(value, indent=2, **options) + "\n")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines, which include their line ends, to a UTF-8 file atomically; see `whole_file`."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines; see `whole_file`."""
    write_lines(path, json_lines(rows))


def json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Rows as JSON, each with a line end."""
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        BfpoError: if the file can't be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BfpoError(f"{path}: can't be read ({error.strerror or error}); check the path") from error


def encodable(text: str) -> str:
    """A text with "?" for lone surrogates, which are legal in JSON but can't be written as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def cache_folder() -> Path:
    """Folder of all caches: $BFPO_CACHE, by default ~/.cache/bfpo."""
    return Path(os.environ.get("BFPO_CACHE", "~/.cache/bfpo")).expanduser()


def check_suffix(path: Path, suffix: str) -> None:
    """Refuse a name that promises another format than the one that is written.

    Raises:
        BfpoError: if the path doesn't end in ``suffix``.
    """
    if path.suffix != suffix:
        raise BfpoError(f"{path}: this file is written as {suffix[1:]}; name a file that ends in {suffix}")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Context with a temporary folder that becomes ``path`` if the block ends without an error.

    If another process created ``path`` in the meantime, its folder is kept and this one is discarded.
    """
    temporary = _beside(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def explained_full_disk(folder: Path) -> Iterator[None]:
    """Turn a failed write below a folder, such as on a full disk, into an error with what to do.

    Raises:
        RunError: if a write fails.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError) as error:
        if isinstance(error, OSError) and not _is_about(error, folder):
            raise
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{folder}: can't be written ({reason}); free space, then continue with --resume") from error


def _is_about(error: OSError, folder: Path) -> bool:
    """Whether an error is of a full disk, or of a file in a folder; others are of what a callback or a tracker did."""
    named = error.filename
    if error.errno in FULL or (named is None and error.errno in (errno.EFBIG, errno.EIO, errno.EROFS)):
        return True
    return isinstance(named, str | os.PathLike) and Path(named).absolute().is_relative_to(folder.absolute())


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
