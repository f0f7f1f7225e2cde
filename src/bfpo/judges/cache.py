"""Cache of verdicts in SQLite, keyed by judge (with its digest or revision), template, prompt, answer and behavior.

SQLite keeps every complete verdict of a killed run, lets runs share a cache, and holds 200,000 rows outside memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from bfpo.errors import BfpoError
from bfpo.judges.verdict import Exchange, Judge, Verdict, verdict_from

_SCHEMA = "CREATE TABLE IF NOT EXISTS verdicts (key BLOB PRIMARY KEY, verdict TEXT NOT NULL) WITHOUT ROWID"


def default_cache_file() -> Path:
    """Default path of the cache: ``verdicts.sqlite`` in $BFPO_CACHE or ~/.cache/bfpo."""
    return Path(os.environ.get("BFPO_CACHE", "~/.cache/bfpo")).expanduser() / "verdicts.sqlite"


def verdict_key(judge: Judge, exchange: Exchange) -> bytes:
    """Digest of everything that a verdict depends on."""
    parts = [judge.judge_id, judge.template_digest, exchange.prompt, exchange.answer, exchange.behavior]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


class VerdictCache:
    """Verdicts of any number of judges in one file.

    Args:
        path: path of the file, which is created if missing.

    Raises:
        BfpoError: if the file exists and is not a cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
            # With a write-ahead log a commit is one append, fast enough to store each verdict as it arrives.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise BfpoError(
                f"{path}: this is not a cache of verdicts ({error}); name another file or delete it"
            ) from error

    def get(self, judge: Judge, exchange: Exchange) -> Verdict | None:
        """The judge's verdict on an exchange, or None if it is not cached."""
        row = self._connection.execute(
            "SELECT verdict FROM verdicts WHERE key = ?", (verdict_key(judge, exchange),)
        ).fetchone()
        return verdict_from(json.loads(row[0])) if row else None

    def add(self, judge: Judge, judged: Iterable[tuple[Exchange, Verdict]]) -> None:
        """Store verdicts in one transaction."""
        rows = [(verdict_key(judge, exchange), json.dumps(asdict(verdict))) for exchange, verdict in judged]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", rows)
        self._connection.execute("COMMIT")

    def __enter__(self) -> VerdictCache:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
