"""Cache of verdicts and preferences in SQLite, keyed by judge (with its digest or revision), template and texts.

SQLite keeps every complete verdict of a killed run, lets runs share a cache, and holds 200,000 rows outside memory.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bfpo.errors import BfpoError, RunError
from bfpo.files import cache_folder, created_folder
from bfpo.judges.preference import AnswerPair, HelpfulnessJudge, Preference, preference_from
from bfpo.judges.verdict import Exchange, Judge, Verdict, verdict_from

# The verdict is JSON after a checksum.
_SCHEMA = "CREATE TABLE IF NOT EXISTS verdicts (key BLOB PRIMARY KEY, verdict TEXT NOT NULL) WITHOUT ROWID"
# Verdicts that are copied at once.
_CHUNK = 10_000
# SQLite's mark of files of this program; caches made before it was introduced have 0.
_APPLICATION = int.from_bytes(b"bfpo")
_REMEDY = "name another file with --cache, or move this one away to have all verdicts asked for again"
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_FORBIDDEN = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def default_cache_file() -> Path:
    """Default path of the cache: ``verdicts.sqlite`` in $BFPO_CACHE or ~/.cache/bfpo."""
    return cache_folder() / "verdicts.sqlite"


def verdict_key(judge: Judge, exchange: Exchange) -> bytes:
    """Digest of everything that a verdict depends on."""
    parts = [judge.judge_id, judge.template_digest, exchange.prompt, exchange.answer, exchange.behavior]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def preference_key(judge: HelpfulnessJudge, pair: AnswerPair) -> bytes:
    """Digest of everything that a preference depends on."""
    parts = ["preference", judge.judge_id, judge.template_digest, pair.prompt, pair.first, pair.second]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


class VerdictCache:
    """Verdicts and preferences of any number of judges in one file.

    Args:
        path: path of the file, which is created if missing.
        timeout: seconds to wait for another process that writes to it.

    Attributes:
        damaged: number of verdicts and preferences that could not be read, and so were asked for again.
        added: number of those that were added, without those taken from another cache.

    Raises:
        BfpoError: if the file can't be written, is damaged, or is not a cache; also from all methods.
        RunError: if the disk is full, or another process keeps the file locked; also from all methods.
    """

    def __init__(self, path: Path, timeout: float = 60.0) -> None:
        self.path = path
        self.damaged = self.added = 0
        created_folder(path.parent)
        with _usable(path):
            # A judge may read its exchanges, which are looked up as they are read, in a thread of its own.
            self._connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
            self._connection.create_function("is_intact", 1, _is_intact, deterministic=True)
            is_new = not _is_cache(self._connection, path)
            # With a write-ahead log a commit is one append, fast enough to store each verdict as it arrives.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_SCHEMA)
            if is_new:
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION}")

    def get(self, judge: Judge, exchange: Exchange) -> Verdict | None:
        """The judge's verdict on an exchange, or None if it is not cached."""
        found = self._stored(verdict_key(judge, exchange))
        return None if found is None else verdict_from(found)

    def add(self, judge: Judge, judged: Iterable[tuple[Exchange, Verdict]]) -> None:
        """Store verdicts in one transaction."""
        self._add([(verdict_key(judge, exchange), _packed(verdict)) for exchange, verdict in judged])

    def get_preference(self, judge: HelpfulnessJudge, pair: AnswerPair) -> Preference | None:
        """The judge's preference between two answers, or None if it is not cached."""
        found = self._stored(preference_key(judge, pair))
        return None if found is None else preference_from(found)

    def add_preferences(self, judge: HelpfulnessJudge, compared: Iterable[tuple[AnswerPair, Preference]]) -> None:
        """Store preferences in one transaction."""
        self._add([(preference_key(judge, pair), _packed(preference)) for pair, preference in compared])

    def _add(self, rows: Sequence[tuple[bytes, str]]) -> None:
        self._insert(rows)
        self.added += len(rows)

    def take(self, path: Path) -> int:
        """Copy the verdicts that this cache lacks, or has damaged, from another one; returns their number.

        The other file is only read; its damaged verdicts are left out with a warning.

        Raises:
            BfpoError: if the other file is missing or is not a cache.
        """
        if not path.exists():
            raise BfpoError(f"{path}: there is no such cache of verdicts; check the path")
        # Without a log nobody is writing to the file, and SQLite needs no files of its own beside it.
        how = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
        count = damaged = 0
        with (
            _usable(path, "check the path"),
            closing(sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True)) as other,
        ):
            if not _is_cache(other, path):
                raise BfpoError(f"{path}: this database is empty; check the path")
            found = other.execute("SELECT key, verdict FROM verdicts ORDER BY key")
            while rows := found.fetchmany(_CHUNK):
                intact = [row for row in rows if _is_intact(row[1])]
                count += self._insert(intact, "WHERE NOT is_intact(verdict)")
                damaged += len(rows) - len(intact)
        if damaged:
            warnings.warn(f"{path}: {damaged:,} damaged verdicts are left out", stacklevel=2)
        return count

    def _stored(self, key: bytes) -> dict[str, Any] | None:
        """The record with a key; None if there is none, or it was changed since it was stored."""
        with _usable(self.path):
            row = self._connection.execute("SELECT verdict FROM verdicts WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        if _is_intact(row[0]):
            return json.loads(row[0].partition(" ")[2])
        self.damaged += 1
        if self.damaged == 1:
            warnings.warn(f"{self.path}: damaged verdicts are asked for again", stacklevel=2)
        return None

    def _insert(self, rows: Sequence[tuple[bytes, str]], replaced: str = "") -> int:
        """Store rows in one transaction; a condition says which known ones are replaced. Returns the number stored."""
        statement = "INSERT INTO verdicts VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET verdict = excluded.verdict"
        with _usable(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            count = self._connection.executemany(f"{statement} {replaced}", rows).rowcount
            self._connection.execute("COMMIT")
        return count

    def __enter__(self) -> VerdictCache:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()


@contextmanager
def _usable(path: Path, remedy: str = _REMEDY) -> Iterator[None]:
    """Turns SQLite's errors into sentences."""
    try:
        yield
    # UnicodeDecodeError: SQLite's own sentence quotes the damaged schema.
    except (sqlite3.Error, UnicodeDecodeError) as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the detail in the higher bytes
        if code in _BUSY:
            raise RunError(
                f"{path}: another process keeps the cache of verdicts locked; rerun when it is done, or name another "
                "file with --cache"
            ) from error
        if code in _DISK:
            raise RunError(
                f"{path}: the disk is full or fails ({error}); free space or check it, then rerun, which asks for no "
                "cached verdict again"
            ) from error
        if code in _FORBIDDEN:
            raise BfpoError(
                f"{path}: the cache of verdicts can't be opened or written ({error}); check the path and its "
                "permissions, or name another file"
            ) from error
        raise BfpoError(f"{path}: this is not a cache of verdicts, or it is damaged ({error}); {remedy}") from error


def _is_cache(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether a database is a cache, or otherwise is empty.

    Raises:
        BfpoError: if it is neither.
    """
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    columns = [row[1] for row in connection.execute("PRAGMA table_info(verdicts)")]
    if application not in (0, _APPLICATION) or (tables and columns != ["key", "verdict"]):
        raise BfpoError(f"{path}: this is another program's database, not a cache of verdicts; check the path")
    return bool(tables)


def _packed(word: Verdict | Preference) -> str:
    # It holds nothing that asdict would have to convert, in ten times the time.
    text = json.dumps(vars(word))
    return f"{_checksum(text)} {text}"


def _is_intact(stored: object) -> bool:
    """Whether a stored verdict has its checksum."""
    checksum, _, text = stored.partition(" ") if isinstance(stored, str) else ("", "", "")
    return checksum == _checksum(text)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
