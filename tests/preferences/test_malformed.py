"""Tests that every malformed file ends in exit code 2 and one message with file, place and remedy."""

import gzip
import json

import pytest

from bfpo import load_preferences
from bfpo.preferences.schema import PreferenceDataError
from preferences.malformed import GOOD, MALFORMED, lines
from support import warm


@pytest.mark.parametrize(("name", "content", "words"), MALFORMED, ids=[name for name, _, _ in MALFORMED])
def test_message_names_file_place_and_remedy(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PreferenceDataError) as error:
        load_preferences(str(path))
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message
    assert all(problem.remedy for problem in error.value.problems)


@pytest.mark.parametrize(("name", "content", "words"), MALFORMED[::6], ids=[name for name, _, _ in MALFORMED[::6]])
def test_command_exits_with_two_without_traceback_or_trace(tmp_path, monkeypatch, name, content, words):
    (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    done = warm.bfpo("data", "check", name)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.count("error:") == 1
    assert all(word in done.stderr for word in words)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["missing.jsonl", "./nothing", "/no/such/file.json", "."])
def test_paths_are_never_looked_up_on_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    done = warm.bfpo("data", "check", name)
    assert done.returncode == 2
    assert ("no such file" in done.stderr) or ("it is a folder that" in done.stderr)


def test_all_problems_are_found_in_one_pass(tmp_path):
    path = tmp_path / "many.jsonl"
    path.write_bytes(
        lines(
            GOOD | {"chosen": None, "rejected": 7},
            GOOD,
            GOOD | {"chosen_is_safe": 2},
            GOOD | {"chosen_is_better": -1},
            GOOD | {"prompt": " "},
        )
    )
    with pytest.raises(PreferenceDataError) as error:
        load_preferences(str(path))
    places = [(problem.row, problem.column) for problem in error.value.problems]
    assert places == [
        (1, "chosen"), (1, "rejected"), (3, "chosen_is_safe"), (4, "chosen_is_better"), (5, "prompt"),
    ]  # fmt: skip
    done = warm.bfpo("data", "check", path, "--json")
    assert done.returncode == 2
    assert [(p["row"], p["column"]) for p in json.loads(done.stdout)["problems"]] == places


@pytest.mark.parametrize("name", ["one.jsonl.gz", "one.json.gz", "one.csv.gz"])
def test_a_line_that_unpacks_to_gigabytes_is_refused_at_once(tmp_path, monkeypatch, name):
    monkeypatch.setattr("bfpo.preferences.reading._LINE", 2**16)
    monkeypatch.setattr("bfpo.preferences.reading._WHOLE", 2**16)
    read = []
    whole = gzip.GzipFile.readline
    monkeypatch.setattr(gzip.GzipFile, "readline", lambda self, size=-1: read.append(size) or whole(self, size))
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"prompt,chosen,rejected\n" * (".csv" in name) + b"a" * 2**22))
    with pytest.raises(PreferenceDataError, match=r"longer than|larger than"):
        load_preferences(str(path))
    assert len(read) <= 6
    assert all(size == 2**16 + 1 for size in read)


def test_every_unreadable_line_is_named(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"{\n" + lines(GOOD) + b"nonsense\n")
    with pytest.raises(PreferenceDataError) as error:
        load_preferences(str(path))
    assert [problem.row for problem in error.value.problems] == [1, 3]
