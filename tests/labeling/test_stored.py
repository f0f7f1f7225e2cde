"""Rows and numbers in temporary files: the same as in memory, and labeling holds no texts."""

import gc
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.errors import BfpoError, RunError
from bfpo.judges import Verdict
from bfpo.judges.preference import Preference
from bfpo.labeling.run import label
from bfpo.labeling.stored import StoredRows, stored_numbers

NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), max_size=6))
def test_rows_come_back_as_they_were(tmp_path_factory, rows):
    stored = StoredRows(iter(rows), tmp_path_factory.getbasetemp())
    assert list(stored) == list(stored) == rows
    assert [stored[at] for at in range(len(stored))] == rows
    assert stored[1:] == rows[1:]
    assert stored[::-1] == rows[::-1]
    assert not rows or stored[-1] == rows[-1]


def test_rows_longer_than_a_block_can_be_read_by_alternating_iterations(tmp_path):
    rows = [{"n": n, "text": str(n) * (600_000 if n % 5 == 0 else 10)} for n in range(23)]
    stored = StoredRows(rows, tmp_path / "new")
    pairs = zip(stored, stored, strict=True)
    assert all(first == second == rows[at] == stored[at] for at, (first, second) in enumerate(pairs))
    with pytest.raises(IndexError):
        stored[23]
    # The files have no names, so none is left behind.
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("count", [0, 1, 2**16, 2**17 + 3])
def test_numbers_in_a_file_are_those_in_memory(tmp_path, count):
    numbers = np.random.default_rng(0).normal(size=count)
    numbers[::7] = np.nan
    inside, outside = (stored_numbers(iter(numbers.tolist()), folder) for folder in (None, tmp_path))
    np.testing.assert_array_equal(inside, numbers)
    np.testing.assert_array_equal(outside, numbers)
    outside[:1] = 5.0
    assert not count or outside[0] == 5.0


def test_a_folder_that_can_t_be_written_to_and_a_full_disk_are_sentences(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(BfpoError, match=r"file: can't be written to \(File exists\); name an output elsewhere"):
        StoredRows([], tmp_path / "file")

    class FullDisk:
        def write(self, content):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("bfpo.labeling.stored._temporary_file", lambda folder: FullDisk())
    with pytest.raises(RunError, match=r"can't be written to \(No space left on device\); free space and rerun"):
        StoredRows([{}], tmp_path)


class LengthJudge:
    judge_id, template_digest = "length", ""

    def judge(self, exchanges):
        safe = [len(exchange.answer) % 2 == 0 for exchange in exchanges]
        return [Verdict("safe" if one else "unsafe", float(one), judge_id="length") for one in safe]


class ShorterIsBetter:
    judge_id, template_digest = "shorter", ""

    def compare(self, pairs):
        wins = [len(pair.first) < len(pair.second) for pair in pairs]
        return [Preference("first" if won else "second", float(won), (), "shorter") for won in wins]


def peak(path, rows, better, **options):
    """The most memory that labeling takes, in bytes, once an earlier run has converted the set."""
    texts = (f"{at} " + "x" * 2000 for at in range(rows))
    sets = ({"prompt": text, "chosen": f"{text} a", "rejected": f"{text} bc", "chosen_is_safe": None,
             "rejected_is_safe": None, "chosen_is_better": better} for text in texts)  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in sets))
    first = label(str(path), [LengthJudge()], path.with_suffix(".first.jsonl"))
    assert len(first.rows) == rows
    answered = path.with_suffix(".answers.jsonl")
    queue = [json.loads(line) for line in path.with_suffix(".first.queue.jsonl").read_text().splitlines()]
    for asked in queue[:20]:
        asked["asks"] = dict.fromkeys(asked["asks"], True)
    answered.write_text("".join(json.dumps(asked) + "\n" for asked in queue))
    del queue
    if options:
        options["answers"] = [str(answered)]
    gc.collect()
    tracemalloc.start()
    labeled = label(str(path), [LengthJudge()], path.with_suffix(".out.jsonl"), judgments=5, **options)
    largest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if options:
        assert labeled.report.safety["random"] + labeled.report.safety["queue"] == 40
        assert labeled.report.order["judge"] == rows - 20
    return largest


@pytest.mark.parametrize(("better", "options"), [(1.0, {}), (None, {"order_judge": ShorterIsBetter()})])
def test_labeling_three_times_the_rows_takes_no_more_memory(tmp_path, monkeypatch, better, options):
    """Each row has 6,000 characters of text; its numbers, and SQLite's, are a few dozen bytes."""
    for name in ("judges.streaming.WINDOW", "labeling.queue._AT_ONCE", "preferences.label_sources._ROWS_AT_ONCE"):
        monkeypatch.setattr(f"bfpo.{name}", 100)
    small, large = (peak(tmp_path / f"{rows}.jsonl", rows, better, **options) for rows in (600, 1800))
    assert large - small < 1200 * 250
