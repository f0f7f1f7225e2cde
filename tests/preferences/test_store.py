"""Tests of the row cache: entries depend on exactly their key, and are complete or missing."""

import json
from datetime import UTC, datetime

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.errors import BfpoError
from bfpo.preferences import encoding
from bfpo.preferences.encoding import encode, tokenizer_digest
from bfpo.preferences.loading import load_preferences
from bfpo.preferences.store import rows_digest, store_folder, stored
from preferences.test_encoding import CONVENTIONS, pairs

FEATURES = datasets.Features({"a": datasets.Value("int32"), "b": datasets.List(datasets.Value("string"))})


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BFPO_CACHE", str(tmp_path / "cache"))


def builder(rows, calls):
    def build(writer):
        calls.append(len(rows))
        writer.open(FEATURES)
        for row in rows:
            writer.write(row)
        return {"count": writer.rows}

    return build


@pytest.mark.parametrize("count", [1, 999, 1000, 2001])
def test_rows_are_written_once_and_come_back_as_they_were(count):
    rows = [{"a": at, "b": ["x"] * (at % 3)} for at in range(count)]
    calls = []
    for _ in range(2):
        found, notes = stored({"of": count}, builder(rows, calls))
        assert found.to_list() == rows
        assert found.features == FEATURES
        assert notes == {"count": count}
    assert calls == [count]
    stored({"of": "something else"}, builder(rows, calls))
    assert calls == [count, count]


def test_columns_that_json_does_not_know_have_a_digest(tmp_path):
    pair = {"prompt": ["a"], "chosen": ["x"], "rejected": ["z"]}
    dates = [pair | {"created_at": [datetime(2024, 1, day, tzinfo=UTC)], "raw": [b"\xff"]} for day in (1, 2)]
    first, second = (datasets.Dataset.from_dict(each) for each in dates)
    assert rows_digest(first) != rows_digest(second)
    first.save_to_disk(str(tmp_path / "saved"))
    assert len(load_preferences(str(tmp_path / "saved"))) == 1


def test_a_file_in_place_of_the_cache_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BFPO_CACHE", str(tmp_path / "file"))
    with pytest.raises(BfpoError, match="can't be created"):
        stored("key", builder([{"a": 1, "b": []}], []))


def test_what_fails_leaves_nothing():
    def build(writer):
        builder([{"a": 1, "b": []}] * 1500, [])(writer)
        raise BfpoError("no")

    with pytest.raises(BfpoError, match="no"):
        stored({}, build)
    assert list(store_folder().iterdir()) == []


def test_a_folder_without_its_notes_is_written_again():
    calls = []
    stored({}, builder([{"a": 1, "b": []}], calls))
    (folder,) = store_folder().iterdir()
    moved = folder.with_name(".killed.partial")
    folder.rename(moved)
    found, _ = stored({}, builder([{"a": 1, "b": []}], calls))
    assert (len(found), calls) == (1, [1, 1])


def test_another_process_may_be_faster(monkeypatch):
    calls = []

    def build(writer):
        notes = builder([{"a": 2, "b": []}], calls)(writer)
        if len(calls) == 1:
            stored({}, builder([{"a": 2, "b": []}], calls))
        return notes

    assert stored({}, build)[0][0]["a"] == 2
    assert len(list(store_folder().iterdir())) == 1


tables = st.lists(
    st.fixed_dictionaries({"a": st.none() | st.integers(0, 5), "b": st.lists(st.text(max_size=3), max_size=3)}),
    min_size=1,
    max_size=30,
)


@given(tables, tables, st.integers(1, 30))
def test_the_digest_is_of_what_rows_hold(first, second, cut):
    def dataset(rows):
        return datasets.Dataset.from_list(rows, features=FEATURES)

    digest = rows_digest(dataset(first))
    parts = [dataset(part) for part in (first[:cut], first[cut:]) if part]
    assert rows_digest(datasets.concatenate_datasets(parts)) == digest
    assert rows_digest(dataset([*second, *first]).select(range(len(second), len(first) + len(second)))) == digest
    assert (rows_digest(dataset(second)) == digest) == (first == second)


def counting(monkeypatch):
    calls = []
    plain = encoding._encode_row
    monkeypatch.setattr(encoding, "_encode_row", lambda *args: calls.append(args[1]) or plain(*args))
    return calls


def test_rows_are_encoded_anew_if_anything_changes_that_ids_depend_on(monkeypatch):
    calls = counting(monkeypatch)
    rows, tokenizer = pairs(("ab", "c", "d")), CONVENTIONS["plain text"]
    first = encode(rows, tokenizer, 20)
    again = encode(rows.select([0]), tokenizer, 20)
    assert len(calls) == 1
    assert again.counts == first.counts
    assert again.dataset.to_list() == first.dataset.to_list()
    for at, (other, convention, length) in enumerate(
        [(rows, "plain text", 21), (rows, "plain text with bos", 20), (pairs(("ab", "c", "e")), "plain text", 20)]
    ):
        encode(other, CONVENTIONS[convention], length)
        assert len(calls) == at + 2


def test_a_tokenizers_digest_sees_its_template():
    tokenizer = CONVENTIONS["both"]
    before = tokenizer_digest(tokenizer)
    template = tokenizer.chat_template
    tokenizer.chat_template = template + " "
    try:
        assert tokenizer_digest(tokenizer) != before
    finally:
        tokenizer.chat_template = template
    assert tokenizer_digest(tokenizer) == before


def test_a_changed_file_is_read_anew_and_a_moved_one_is_not(tmp_path):
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    path, other = tmp_path / "x.jsonl", tmp_path / "y.jsonl"
    path.write_text(json.dumps(row) + "\n")
    other.write_text(json.dumps(row) + "\n")
    load_preferences(str(path))
    load_preferences(str(other))
    assert len(list(store_folder().iterdir())) == 1
    path.write_text(json.dumps(row | {"chosen": "d"}) + "\n")
    assert load_preferences(str(path))[0]["chosen"] == "d"
    assert load_preferences(str(path), unknown_safety=0.5)[0]["chosen_is_safe"] == 0.5
    assert len(list(store_folder().iterdir())) == 3
