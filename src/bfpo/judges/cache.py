"""Cache of verdicts and preferences in SQLite, keyed by judge (with its digest or revision), template and texts.

SQLite keeps every complete verdict of a killed run, lets runs share a cache, and holds 200,000 rows outside memory.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bfpo.errors import BfpoError, RunError
from bfpo.files import cache_folder
from bfpo.judges.preference import AnswerPair, HelpfulnessJudge, Preference, preference_from
from bfpo.judges.verdict import Exchange, Judge, Verdict, verdict_from

# The verdict is JSON after a checksum.
_SCHEMA = "CREATE TABLE IF NOT EXISTS verdicts (key BLOB PRIMARY KEY, verdict TEXT NOT NULL) WITHOUT ROWID"
# Verdicts that are copied at once.
_CHUNK = 10_000
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


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
        RunError: if another process keeps it locked; also from all methods.
    """

    def __init__(self, path: Path, timeout: float = 60.0) -> None:
        self.path = path
        self.damaged = self.added = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BfpoError(f"{path}: the cache of verdicts can't be created ({error.strerror})") from error
        with self._usable():
            self._connection = sqlite3.connect(path, timeout=timeout, isolation_level=None)
            # With a write-ahead log a commit is one append, fast enough to store each verdict as it arrives.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_SCHEMA)

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
        self._insert("REPLACE", rows)
        self.added += len(rows)

    def take(self, path: Path) -> int:
        """Copy the verdicts that this cache lacks from another one; returns their number.

        Raises:
            BfpoError: if the other file is missing or is not a cache.
        """
        if not path.exists():
            raise BfpoError(f"{path}: there is no such cache of verdicts; check the path")
        with VerdictCache(path) as other:
            return sum(self._insert("IGNORE", rows) for rows in other._chunks())

    def _stored(self, key: bytes) -> dict[str, Any] | None:
        """The record with a key; None if there is none, or it was changed since it was stored."""
        with self._usable():
            row = self._connection.execute("SELECT verdict FROM verdicts WHERE key = ?", (key,)).fetchone()
        record = _unpacked(row[0]) if row else None
        if row and record is None:
            self.damaged += 1
            if self.damaged == 1:
                warnings.warn(f"{self.path}: damaged verdicts are asked for again", stacklevel=2)
        return record

    def _insert(self, known: str, rows: Sequence[tuple[bytes, str]]) -> int:
        """Store rows in one transaction; of ``known`` ones, SQLite does as it is told. Returns their number."""
        with self._usable():
            self._connection.execute("BEGIN IMMEDIATE")
            count = self._connection.executemany(f"INSERT OR {known} INTO verdicts VALUES (?, ?)", rows).rowcount
            self._connection.execute("COMMIT")
        return count

    def _chunks(self) -> Iterator[list[tuple[bytes, str]]]:
        with self._usable():
            cursor = self._connection.execute("SELECT key, verdict FROM verdicts ORDER BY key")
        while True:
            with self._usable():
                rows = cursor.fetchmany(_CHUNK)
            if not rows:
                return
            yield rows

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Turns SQLite's errors into sentences."""
        try:
            yield
        # UnicodeDecodeError: SQLite's own sentence quotes the damaged schema.
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if getattr(error, "sqlite_errorcode", None) in _BUSY:
                raise RunError(
                    f"{self.path}: another process keeps the cache of verdicts locked; rerun when it is done, or name "
                    "another file with --cache"
                ) from error
            raise BfpoError(
                f"{self.path}: this is not a cache of verdicts, or it is damaged ({error}); name another file with "
                "--cache, or move this one away to have all verdicts asked for again"
            ) from error

    def __enter__(self) -> VerdictCache:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()


def _packed(word: Verdict | Preference) -> str:
    # It holds nothing that asdict would have to convert, in ten times the time.
    text = json.dumps(vars(word))
    return f"{_checksum(text)} {text}"


def _unpacked(stored: object) -> dict[str, Any] | None:
    """The record, or None if it was changed since it was stored."""
    checksum, _, text = stored.partition(" ") if isinstance(stored, str) else ("", "", "")
    return json.loads(text) if checksum == _checksum(text) else None


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
