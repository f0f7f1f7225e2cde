"""The short form of the fuzzer (`make fuzz` has 100,000 inputs), and what it must notice."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bfpo.errors import BfpoError, RunError
from fuzzing import fuzz
from fuzzing.targets import TARGETS, Target

FUZZER = Path(fuzz.__file__)


def test_a_few_damaged_inputs_of_every_kind_give_documented_errors_only():
    count = 8 * len(TARGETS)
    command = [sys.executable, FUZZER, "--inputs", str(count), "--in-process"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} inputs with seed 0, 0 faults" in done.stdout
    assert {line.split()[0] for line in done.stdout.splitlines()[:-1]} == set(TARGETS)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """The fuzzer sets the variable; this one restores it."""
    monkeypatch.setenv("BFPO_CACHE", str(tmp_path))


def faulty(folder):
    """Fails in every way, by the content of its file."""
    content = (folder / "x.txt").read_bytes()
    if content == b"good":
        return
    if len(content) % 4 == 0:
        raise BfpoError("refused")
    if len(content) % 4 == 1:
        raise KeyError("undocumented")
    if len(content) % 4 == 2:
        while True:
            pass
    bytearray(2 * fuzz.MEMORY)


def test_every_fault_is_noticed_counted_and_can_be_repeated(monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.05)
    monkeypatch.setitem(TARGETS, "faulty", Target(lambda: {"one": {"x.txt": b"good"}}, faulty))
    result = fuzz.run_target("faulty", 0, range(40))
    assert set(result["counts"]) >= {"refused", "an undocumented error", "too slow", "too much memory"}
    assert sum(result["counts"].values()) == 40
    assert json.loads(json.dumps(result)) == result
    for fault in result["faults"][:3]:
        again = fuzz.run_target("faulty", 0, range(fault["number"], fault["number"] + 1))
        assert [each["what"] for each in again["faults"]] == [fault["what"]]
        assert f"--target faulty --seed 0 --only {fault['number']}" in fuzz.describe(again, 0)


def test_another_seed_gives_other_inputs():
    first, again, other = (fuzz.run_target("labels", seed, range(30))["counts"] for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_undamaged_inputs_of_every_kind_are_read(name, tmp_path):
    read = 0
    for number, sample in enumerate(TARGETS[name].samples().values()):
        folder = tmp_path / f"{number}" / "input"
        folder.mkdir(parents=True)
        for file, content in sample.items():
            (folder / file).write_bytes(content)
        with contextlib.suppress(BfpoError, RunError):  # an answer with status 429, for one, is refused
            TARGETS[name].use(folder)
            read += 1
    assert read
