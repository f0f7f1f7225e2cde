"""The file of the cache of verdicts: merging, files of other programs, and disks that fail."""

import sqlite3

import pytest

from bfpo.errors import BfpoError, RunError
from bfpo.judges import Exchange, verdicts
from bfpo.judges.cache import VerdictCache
from judges.counting import Counting, exchanges


def filled(path, asked):
    with VerdictCache(path) as cache:
        list(verdicts(Counting(), asked, cache))
    return path


def changed(path, statement):
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


DAMAGE = "UPDATE verdicts SET verdict = replace(verdict, '\"unsafe\"', '\"safe\"')"


def test_a_part_is_only_read(tmp_path):
    part = filled(tmp_path / "part #1?.sqlite", exchanges(30))
    before = part.read_bytes()
    with VerdictCache(tmp_path / "all.sqlite") as cache:
        assert cache.take(part) == 30
        assert cache.take(part) == 0
        assert list(verdicts(Counting(failing=frozenset("0123456789")), exchanges(30), cache))[7].label == "unsafe"
        assert cache.added == 0
    assert part.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {part.name, "all.sqlite"}


def test_verdicts_in_the_log_of_a_killed_part_are_taken(tmp_path):
    with VerdictCache(tmp_path / "part.sqlite") as part:
        list(verdicts(Counting(), exchanges(30), part))
        killed = tmp_path / "killed.sqlite"
        for end in ("", "-wal"):
            (tmp_path / f"killed.sqlite{end}").write_bytes((tmp_path / f"part.sqlite{end}").read_bytes())
    with VerdictCache(tmp_path / "all.sqlite") as cache:
        assert cache.take(killed) == 30


def test_a_part_mends_what_is_damaged_and_what_it_has_damaged_is_left_out(tmp_path):
    """A row that failed its checksum was kept, and a judge was asked although the part had its verdict."""
    own, good, bad = (filled(tmp_path / f"{name}.sqlite", exchanges(10)) for name in ("own", "good", "bad"))
    changed(own, DAMAGE)
    changed(bad, DAMAGE)
    with VerdictCache(own) as cache:
        with pytest.warns(UserWarning, match=r"bad.sqlite: 5 damaged verdicts are left out"):
            assert cache.take(bad) == 0
        assert cache.take(good) == 5
        silent = Counting(failing=frozenset(str(n) for n in range(10)))
        assert list(verdicts(silent, exchanges(10), cache)) == list(verdicts(Counting(), exchanges(10)))
        assert cache.damaged == 0


@pytest.mark.parametrize(
    "schema",
    ["CREATE TABLE orders (id)", "CREATE TABLE verdicts (id, court)", "PRAGMA application_id = 7"],
)
def test_another_program_s_database_is_neither_taken_nor_changed(tmp_path, schema):
    other = tmp_path / "other.sqlite"
    changed(other, schema)
    before = other.read_bytes()
    with VerdictCache(tmp_path / "own.sqlite") as cache, pytest.raises(BfpoError, match="another program's database"):
        cache.take(other)
    with pytest.raises(BfpoError, match=r"other.sqlite: this is another program's database"):
        VerdictCache(other)
    assert other.read_bytes() == before


def test_an_empty_file_is_a_new_cache_but_no_part(tmp_path):
    (tmp_path / "empty.sqlite").touch()
    with VerdictCache(tmp_path / "own.sqlite") as cache, pytest.raises(BfpoError, match="this database is empty"):
        cache.take(tmp_path / "empty.sqlite")
    assert len(list(verdicts(Counting(), exchanges(3), VerdictCache(tmp_path / "empty.sqlite")))) == 3


def test_caches_without_the_mark_stay_readable_and_new_ones_have_it(tmp_path):
    old = filled(tmp_path / "old.sqlite", exchanges(3))
    with sqlite3.connect(old) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (int.from_bytes(b"bfpo", "big"),)
        connection.execute("PRAGMA application_id = 0")
    connection.close()
    with VerdictCache(old) as cache:
        assert cache.get(Counting(), Exchange("q", "2")).label == "safe"


def test_a_full_disk_is_no_damage(tmp_path):
    """The advice was to move the cache away, and have all verdicts asked for again."""
    with VerdictCache(tmp_path / "cache.sqlite") as cache:
        list(verdicts(Counting(), exchanges(3), cache))
        cache._connection.execute("PRAGMA max_page_count = 3")
        with pytest.raises(RunError, match=r"cache.sqlite: the disk is full .*; free space") as full:
            list(verdicts(Counting(), exchanges(3000), cache))
        assert "damaged" not in str(full.value)
        assert cache.get(Counting(), Exchange("q", "2")).label == "safe"


def test_a_cache_that_can_t_be_written_is_no_damage(tmp_path):
    with VerdictCache(tmp_path / "cache.sqlite") as cache:
        cache._connection.execute("PRAGMA query_only = 1")
        with pytest.raises(BfpoError, match=r"can't be opened or written \(attempt to write a readonly"):
            list(verdicts(Counting(), exchanges(3), cache))
    with pytest.raises(BfpoError, match=r"can't be opened or written .*check the path and its permissions"):
        VerdictCache(tmp_path)
    with VerdictCache(tmp_path / "own.sqlite") as cache, pytest.raises(BfpoError, match="can't be opened or written"):
        cache.take(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BfpoError, match=r"file: can't be created"):
        VerdictCache(tmp_path / "file" / "cache.sqlite")
