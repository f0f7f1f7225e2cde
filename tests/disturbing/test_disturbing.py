"""A short form of `make faults`, and that it notices what is lost."""

import itertools
import random
from dataclasses import replace

import pytest

from disturbing.disturb import KINDS, Disturbed, Tally, disturb, table
from disturbing.works import WORKS

BY_NAME = {work.name: work for work in WORKS}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """The program sets the variable; this one restores it."""
    monkeypatch.setenv("BFPO_CACHE", str(tmp_path))


@pytest.mark.long
def test_a_judging_run_survives_one_disturbance_of_each_kind():
    tallies = disturb(BY_NAME["label"], 1, KINDS, seed=1)
    assert {kind: tally.lost for kind, tally in tallies.items()} == {kind: [] for kind in KINDS}
    assert all(tally.tried for tally in tallies.values())
    assert "| label | SIGKILL |" in table({"label": tallies})


def test_another_result_and_an_error_that_no_one_documented_are_lost(tmp_path):
    counter = itertools.count()
    changing = replace(BY_NAME["label"], result=lambda folder: {"full.jsonl": str(next(counter))})
    (found,) = disturb(changing, 1, ["damaged file"], seed=1).values()
    assert [line.rpartition(": ")[2] for line in found.lost] == ["another result"]
    assert found.outcomes == {"another result": 1}

    # Its end alone: whether a signal comes before a wrong option ends the program depends on the machine.
    failing = Disturbed(replace(BY_NAME["label"], resume=("--no-such-option",)), tmp_path, random.Random(1))
    refused = Tally()
    failing.end(refused, "after the last SIGKILL")
    assert "after the last SIGKILL: exit code 2" in refused.lost[-1]
    assert refused.outcomes == {"failed": 1}


def test_the_table_counts_what_was_tried_and_lost():
    tally = Tally()
    tally.outcomes.update({"the same result": 3, "failed": 1})
    tally.lost.append("x")
    assert table({"train": {"SIGTERM": tally}}).splitlines()[-1] == (
        "| train | SIGTERM | 4 | 1 failed, 3 the same result | 1 |"
    )
