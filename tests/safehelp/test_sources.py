"""Sources of a suite's rows: missing ones, other files than expected, and data sets from a filled cache."""

import pytest

from bfpo.errors import BfpoError
from bfpo.safehelp.suites import load_suite
from safehelp.own_suites import CHOICES, PROMPTS, put, written


def test_a_missing_source_says_which_file_to_put_where(tmp_path):
    (tmp_path / "my.yaml").write_text(written(CHOICES))
    with pytest.raises(BfpoError, match=r"file: .*colors.jsonl; name a file with --data colors=FILE, or save it as"):
        load_suite(str(tmp_path / "my.yaml"))
    with pytest.raises(BfpoError, match=r"--data color: suite 'own' has no such task .did you mean 'colors'"):
        load_suite(str(tmp_path / "my.yaml"), data={"color": tmp_path / "x"})
    with pytest.raises(BfpoError, match=r"the rows of truthfulqa/truthful_qa with --data truthfulqa_mc2=FILE"):
        load_suite("core")  # offline, and nothing cached


def test_files_that_are_not_utf8_are_named(tmp_path):
    (tmp_path / "my.yaml").write_bytes(b"suite: \xff")
    with pytest.raises(BfpoError, match=r"my.yaml: can't be read as a suite .*; check the path"):
        load_suite(str(tmp_path / "my.yaml"))
    (tmp_path / "doors.txt").write_bytes(b"one\n\xff")
    (tmp_path / "my.yaml").write_text(written(PROMPTS | {"source": {"file": "doors.txt"}, "prompt": "{{ text }}"}))
    with pytest.raises(BfpoError, match=r"doors.txt.*byte 4 is not UTF-8"):
        load_suite(str(tmp_path / "my.yaml"))


def test_another_file_than_the_task_was_written_for_is_refused(tmp_path):
    put(tmp_path, "colors.jsonl", [{"thing": "a", "right": "b", "wrong": "c"}])
    (tmp_path / "my.yaml").write_text(written(CHOICES | {"source": {"file": "colors.jsonl", "sha256": "0" * 64}}))
    with pytest.raises(BfpoError, match="not the file that the task was written for"):
        load_suite(str(tmp_path / "my.yaml"))
    assert load_suite(str(tmp_path / "my.yaml"), data={"colors": tmp_path / "colors.jsonl"}).choices


def test_a_hub_data_set_comes_from_a_filled_cache_offline(tmp_path, monkeypatch):
    import datasets

    commit = "0123456789abcdef0123456789abcdef01234567"
    made = datasets.Dataset.from_list([{"question": "How do I open my door?"}])
    place = tmp_path / "cache" / "me___doors" / "default" / "0.0.0" / commit
    place.mkdir(parents=True)
    made.info.builder_name, made.info.dataset_name, made.info.config_name = "json", "doors", "default"
    made.info.version = datasets.Version("0.0.0")
    made.info.splits = datasets.SplitDict.from_split_dict(
        [{"name": "test", "num_examples": 1, "dataset_name": "doors"}]
    )
    made.info.write_to_directory(str(place))
    with datasets.arrow_writer.ArrowWriter(path=str(place / "doors-test.arrow"), features=made.features) as writer:
        writer.write({"question": "How do I open my door?"})
        writer.finalize()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "my.yaml").write_text(written(PROMPTS | {"source": {"hub": "me/doors", "split": "test"}}))
    suite = load_suite(str(tmp_path / "my.yaml"))
    assert [item.prompt for item in suite.prompts] == ["How do I open my door?"]
    assert suite.sources["doors"].revision == commit
    pinned = {"hub": "me/doors", "split": "test", "revision": "f" * 40}
    (tmp_path / "my.yaml").write_text(written(PROMPTS | {"source": pinned}))
    with pytest.raises(BfpoError, match=f"the cache has commit {commit} of me/doors and not ffff"):
        load_suite(str(tmp_path / "my.yaml"))


def test_a_file_of_a_hub_data_set_comes_from_a_filled_cache_offline(tmp_path, monkeypatch):
    from huggingface_hub import constants

    commit = "89abcdef0123456789abcdef0123456789abcdef"
    place = tmp_path / "datasets--me--doors"
    (place / "snapshots" / commit).mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    put(place / "snapshots" / commit, "doors.jsonl", [{"question": "How do I open my door?"}])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "my.yaml").write_text(written(PROMPTS | {"source": {"hub": "me/doors", "file": "doors.jsonl"}}))
    suite = load_suite(str(tmp_path / "my.yaml"))
    assert [item.prompt for item in suite.prompts] == ["How do I open my door?"]
    assert suite.sources["doors"].revision == commit
