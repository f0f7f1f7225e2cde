"""Options of ``bfpo evaluate`` that choose tasks, answers made elsewhere, gates, and options that nothing reads."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError, RunError
from bfpo.safehelp.records import Evaluation

TASK = {"license": "CC0-1.0", "prompt": "{{ q }}"}
TASKS = [
    {"task": "doors", "kind": "borderline", "factor": "over_refusal", "source": {"file": "doors.jsonl"}, **TASK},
    {"task": "locks", "kind": "harmful", "factor": "harmless", "source": {"file": "locks.jsonl"}, **TASK},
    {"task": "keys", "kind": "benign", "factor": "helpful", "source": {"hub": "some/keys", "split": "test"}, **TASK},
]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a suite of which two tasks have data, and with answers to one of them."""
    monkeypatch.chdir(tmp_path)
    suite = {"suite": "own", "about": "Mine.", "judges": ["keywords"], "tasks": TASKS}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(suite))
    lines(tmp_path / "doors.jsonl", [{"q": f"door {n}"} for n in range(20)])
    lines(tmp_path / "locks.jsonl", [{"q": f"lock {n}"} for n in range(20)])
    rows = [{"prompt": f"door {n}", "answer": "I'm sorry." if n < 10 else "Sure."} for n in range(20)]
    lines(tmp_path / "theirs.jsonl", [*rows, {"prompt": "other", "answer": "unused"}])
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


DOORS = ("--suite", "own.yaml", "--task", "doors", "--answers", "theirs.jsonl")


def test_answers_made_elsewhere_are_scored_and_gated(place):
    done = run("theirs", *DOORS, "-o", "run", "--temperature", "0.5", "--require", "over_refusal<=.8")
    assert done.exit_code == 0, (done.output, done.exception)
    found = Evaluation.load(place / "run")
    assert found.scores["over_refusal"].value == 0.5
    assert found.header.decoding == {"temperature": 0.5, "samples": 1}
    assert (found.model, found.header.model_path) == ("theirs", "theirs.jsonl")
    assert "theirs.jsonl: 1 answers aren't used" in done.stderr
    failed = run(*DOORS, "-o", "run2", "--require", "over_refusal<=.5", "--require", "harmless>=.5")
    assert isinstance(failed.exception, RunError)
    assert str(failed.exception).startswith("over_refusal <= 0.5 isn't met: the upper end of its interval is 0.7")
    assert str(failed.exception).endswith("; harmless >= 0.5 isn't met: the run didn't measure harmless")
    # The figures are there all the same.
    assert Evaluation.load(place / "run2").scores == found.scores


def test_all_missing_data_is_named_at_once_and_can_be_left_out(place):
    (place / "locks.jsonl").unlink()
    done = run("theirs", *DOORS[:2], "--answers", "theirs.jsonl")
    assert isinstance(done.exception, BfpoError)
    message = str(done.exception)
    assert message.startswith("suite 'own': the rows of 2 tasks are missing.")
    assert "\n  locks: locks.jsonl\n  keys: keys.jsonl with the rows of some/keys\n" in message
    assert "--skip-missing" in message
    done = run("theirs", *DOORS[:2], "--answers", "theirs.jsonl", "--skip-missing", "-o", "run")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "Left out: keys, because its data is missing (keys.jsonl with the rows of some/keys)." in done.stderr
    assert Evaluation.load(place / "run").header.left_out == ("locks", "keys")
    (place / "doors.jsonl").unlink()
    nothing = run("theirs", *DOORS[:2], "--answers", "theirs.jsonl", "--skip-missing")
    assert "the rows of 3 tasks are missing" in str(nothing.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["microworld", "--limit", "3"], "--limit: the microworld doesn't read it"),
        (["microworld", "--task", "doors"], "--task: the microworld doesn't read it"),
        (["microworld", "--skip-missing"], "--skip-missing: the microworld doesn't read it"),
        (["microworld", "--per-kind", "2", "--helpfulness-judge", "x"], "--helpfulness-judge: no task of suite"),
        (["m", *DOORS, "--split", "test"], "--split: only the microworld reads it, and the suite is 'own'"),
        (["m", *DOORS, "--per-kind", "5"], "--per-kind: only the microworld reads it"),
        (["m", "--suite", "own.yaml", "--task", "door"], "--task door: suite 'own' has no such task (did you mean"),
        (["m", *DOORS, "--data", "locks=x"], "--data locks: suite 'own' has no such task"),
        (["m", *DOORS, "--seed", "1"], "--seed: has no effect with --answers"),
        (["m", *DOORS, "--no-chat"], "--no-chat: has no effect with --answers"),
        (["m", *DOORS, "--endpoint", "http://localhost:1/v1"], "--endpoint: has no effect with --answers"),
        (["m", "--suite", "own.yaml", "--api-key-env", "KEY"], "--api-key-env: has no effect with a local model"),
        (["m", "--endpoint", "http://localhost:1/v1", "--no-chat"], "--no-chat: has no effect with --endpoint"),
        (["m", *DOORS, "--require", "harmless"], "--require 'harmless': write it as"),
    ],
)  # fmt: skip
def test_what_nothing_reads_is_an_error(place, arguments, message):
    done = run(*arguments)
    assert isinstance(done.exception, BfpoError), (done.output, done.exception)
    assert message in str(done.exception)


def test_at_temperature_zero_one_answer_is_sampled(tmp_path):
    options = ["--per-kind", "2", "--max-new-tokens", "4", "--temperature", "0", "--samples", "3"]
    done = run("microworld", *options, "-o", tmp_path)
    assert "At temperature 0 all 3 answers to a prompt are the same: sampling one." in done.stderr
    found = Evaluation.load(tmp_path)
    assert (len(found.generations), found.header.decoding["samples"]) == (6, 1)
