"""Atomic writes with concurrent processes, failing writers and a full disk."""

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bfpo
from bfpo.engine.reference_cache import default_cache_folder
from bfpo.errors import BfpoError, RunError, one_line
from bfpo.files import (
    cache_folder,
    check_not_overwritten,
    check_replaceable,
    encodable,
    file_sha256,
    sole_user,
    whole_file,
    whole_folder,
    write_lines,
    write_text,
)
from bfpo.judges.cache import default_cache_file
from bfpo.preferences.store import store_folder

WRITER = """
import sys
from pathlib import Path
from bfpo.files import write_lines
path, letter = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for _ in range(60):
    write_lines(path, (letter * 997 + "\\n" for _ in range(40)))
"""


def test_two_processes_never_leave_a_mixture(tmp_path):
    path = tmp_path / "shared.txt"
    whole = {letter: (letter * 997 + "\n") * 40 for letter in "ab"}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), letter], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for letter in whole
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen.add(path.read_text())
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert {*seen, path.read_text()} <= set(whole.values())
    assert os.listdir(tmp_path) == ["shared.txt"]


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "run.json"
    write_text(path, "old")

    def lines():
        yield "new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lines(path, lines())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_full_disk_is_one_sentence(tmp_path):
    path = tmp_path / "deep" / "arrays"
    with pytest.raises(RunError, match=r"deep/arrays: can't be written \(No space left on device\)"), whole_file(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(path.parent) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(BfpoError, match="can't be written"):
        write_text(tmp_path / "file" / "below", "x")


def test_text_is_written_as_it_is(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_text(path, "ü\n\r\nx")
    assert path.read_bytes() == "ü\n\r\nx".encode()
    write_text(path, "")
    assert path.read_bytes() == b""
    if os.name == "posix":  # and may be read by whoever may read what this user writes
        umask = os.umask(0)
        os.umask(umask)
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_the_first_whole_folder_stays(tmp_path):
    folder = tmp_path / "rows"
    with whole_folder(folder) as mine, whole_folder(folder) as other:
        (mine / "a").write_text("mine")
        (other / "a").write_text("other")
    assert (folder / "a").read_text() == "other"
    with pytest.raises(FileNotFoundError), whole_folder(tmp_path / "never") as mine:
        (mine / "not there" / "a").write_text("mine")
    assert os.listdir(tmp_path) == ["rows"]


def test_nothing_else_renames_files():
    root = Path(bfpo.__file__).parent
    replacing = re.compile(r"os\.(replace|rename)|\.rename\(|mkstemp|NamedTemporaryFile")
    assert [path.name for path in root.rglob("*.py") if replacing.search(path.read_text("utf-8"))] == ["files.py"]


SOLE = """
import sys
from pathlib import Path
from bfpo.files import sole_user
with sole_user(Path(sys.argv[1])):
    print("inside", flush=True)
    sys.stdin.readline()
"""


def test_one_process_at_a_time_is_at_work_in_a_folder(tmp_path):
    folder = tmp_path / "new" / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", SOLE, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "inside\n"
    with pytest.raises(BfpoError, match=r"new/run: another process is using this folder"), sole_user(folder):
        pass
    # A killed process leaves no lock behind.
    other.kill()
    other.wait()
    with sole_user(folder), sole_user(tmp_path / "new"):
        pass
    assert os.listdir(folder) == []
    with sole_user(tmp_path / "empty"):
        assert (tmp_path / "empty").is_dir()
    assert not (tmp_path / "empty").exists()
    (tmp_path / "file").touch()
    with (
        pytest.raises(BfpoError, match=r"file/run: can't be created \(Not a directory\)"),
        sole_user(tmp_path / "file" / "run"),
    ):
        pass


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    named = pytest.warns(UserWarning, match=r"run: this file system has no locks \(No locks available\)")
    with named, sole_user(tmp_path / "run") as folder:
        assert folder == tmp_path / "run"


def test_what_is_something_else_is_not_replaced(tmp_path):
    def read(path):
        if path.read_text() != "a dial":
            raise BfpoError("it is another thing")

    path = tmp_path / "out.json"
    check_replaceable(path, read, "a dial")
    path.write_text("a dial")
    check_replaceable(path, read, "a dial")
    path.write_text("my notes")
    with pytest.raises(BfpoError, match=r"out.json: this would overwrite a file that is not a dial; name another, or"):
        check_replaceable(path, read, "a dial")


def test_outputs_that_are_read_are_refused_under_any_name(tmp_path):
    labels, link = tmp_path / "labels.jsonl", tmp_path / "link.jsonl"
    labels.write_text("x")
    link.symlink_to(labels)
    for read in (labels, f"replay:{labels}"):
        with pytest.raises(BfpoError, match=r"link.jsonl: this would overwrite the labels; name another file"):
            check_not_overwritten(link, [("microworld-oracle", "the judge"), (None, "x"), (read, "the labels")])
    check_not_overwritten(tmp_path / "new.jsonl", [(labels, "the labels")])


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "some.bin"
    path.write_bytes(b"\r\n\xff" * 100_000)
    assert file_sha256(path) == file_sha256(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(BfpoError, match=r"nothing: can't be read \(No such file or directory\); check the path"):
        file_sha256(tmp_path / "nothing")


def test_a_lone_surrogate_becomes_a_question_mark():
    assert encodable("a\ud800 \U0001f600 é") == "a? \U0001f600 é"
    assert encodable(json.loads('"\\udc00"')) == "?"


def test_all_caches_are_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BFPO_CACHE", str(tmp_path))
    places = [default_cache_file(), default_cache_folder(), store_folder()]
    assert {place.parent for place in places} == {cache_folder()} == {tmp_path}
    monkeypatch.delenv("BFPO_CACHE")
    assert cache_folder() == Path.home() / ".cache/bfpo"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines."), "two lines"),
        (ValueError(), "ValueError"),
        (OSError("x" * 300), "x" * 200),
        (KeyError("a"), "'a'"),
    ],
)
def test_another_librarys_error_is_one_line(error, line):
    assert one_line(error) == line
    assert one_line(OSError("x" * 300), limit=None) == "x" * 300
