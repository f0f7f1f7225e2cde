"""Verdicts that were given before, addressed by everything that they depend on.

SQLite, because what is asked of it is what it does: a killed run leaves every verdict that was given and no half of
one, two runs may share a cache, and 200,000 rows take no memory. A key holds the judge (with its digest or revision),
its template, prompt, answer and behavior: whatever changes, no other verdict is found.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from bfpo.errors import BfpoError
from bfpo.judges.verdict import Exchange, Judge, Verdict, verdict_from, verdict_record

_SCHEMA = "CREATE TABLE IF NOT EXISTS verdicts (key BLOB PRIMARY KEY, verdict TEXT NOT NULL) WITHOUT ROWID"


def default_cache_file() -> Path:
    """Where verdicts are kept unless somebody says otherwise: in $BFPO_CACHE or ~/.cache/bfpo."""
    return Path(os.environ.get("BFPO_CACHE", "~/.cache/bfpo")).expanduser() / "verdicts.sqlite"


def verdict_key(judge: Judge, exchange: Exchange) -> bytes:
    """Digest of all that a verdict depends on."""
    parts = [judge.judge_id, judge.template_digest, exchange.prompt, exchange.answer, exchange.behavior]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


class VerdictCache:
    """The verdicts of any number of judges, in one file.

    Args:
        path: of the file, made if there is none.

    Raises:
        BfpoError: if it is there and no cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
            # With a write-ahead log a commit is one append: fast enough to keep every verdict as it comes.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise BfpoError(
                f"{path}: this is no cache of verdicts ({error}); name another file or delete it"
            ) from error

    def get(self, judge: Judge, exchange: Exchange) -> Verdict | None:
        """The verdict that this judge gave on this exchange, if it ever did."""
        row = self._connection.execute(
            "SELECT verdict FROM verdicts WHERE key = ?", (verdict_key(judge, exchange),)
        ).fetchone()
        return verdict_from(json.loads(row[0])) if row else None

    def add(self, judge: Judge, judged: Iterable[tuple[Exchange, Verdict]]) -> None:
        """Keep verdicts; all of them or, if the process dies in between, none."""
        rows = [(verdict_key(judge, exchange), json.dumps(verdict_record(verdict))) for exchange, verdict in judged]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", rows)
        self._connection.execute("COMMIT")

    def __len__(self) -> int:
        return self._connection.execute("SELECT count(*) FROM verdicts").fetchone()[0]

    def __enter__(self) -> VerdictCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
