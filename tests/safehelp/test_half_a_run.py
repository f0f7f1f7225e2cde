"""Tests of run folders that are damaged or copied in part: the file is named, in `compare` and in `report`."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import Decoding
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.suites import load_suite


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    suite = load_suite("microworld", per_kind=2)
    evaluate(LocalGenerator.load("microworld"), suite, name="m", decoding=Decoding(max_new_tokens=4), folder=folder)
    return folder


def changed(name, change):
    def apply(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return apply


def without(name):
    return lambda folder: (folder / name).unlink()


def edited(name, **values):
    return changed(name, lambda content: json.dumps(json.loads(content) | values).encode())


def first_record(**values):
    def edit(content):
        first, rest = content.split(b"\n", 1)
        return json.dumps(json.loads(first) | values).encode() + b"\n" + rest

    return changed("generations.jsonl", edit)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (without("run.json"), "contains no evaluation"),
        (without("scores.json"), "scores.json: can't be read"),
        (without("generations.jsonl"), r"generations.jsonl: has 0 of the \d+ answers that run.json counts"),
        (changed("generations.jsonl", lambda content: content[: content.index(b"\n") + 1]), "has 1 of the"),
        (
            changed("generations.jsonl", lambda content: content[:-20]),
            "can't be read as the record of an answer .Expecting",
        ),
        (changed("generations.jsonl", lambda content: b"\xff" + content[1:]), "line 1: .* .'utf-8' codec"),
        (
            changed("generations.jsonl", lambda content: b"[1]\n" + content),
            r"line 1: .* should be an object with keys, not \[1\]",
        ),
        (changed("generations.jsonl", lambda content: b"[" * 100_000 + content), "line 1: .* nested too deeply"),
        (first_record(answer=3), r"line 1: can't be read as the record of an answer \(answer: "),
        (first_record(verdicts=3), r"line 1: can't be read as the record of an answer \(verdicts: "),
        (first_record(answer_kind="odd"), r"answer_kind: "),
        (changed("run.json", lambda content: content[:40]), "run.json: can't be read"),
        (changed("run.json", lambda content: b""), "run.json: can't be read"),
        (edited("run.json", counts=[1]), "can't be read as the header of an evaluation .counts: "),
        (edited("run.json", judges=[{"judge_id": 1}]), "judges.0.judge_id: input should be a valid string, not 1"),
        (changed("scores.json", lambda content: content[:-9]), "scores.json: can't be read"),
        (edited("scores.json", scores=None), "scores.json: can't be read as the scores of an evaluation"),
        (
            edited("scores.json", scores={"harmless": {"value": "x", "low": 0, "high": 1, "n": 1}}),
            "scores.harmless.value: ",
        ),
        (edited("scores.json", tasks=[{}]), "scores.json: .* the key 'tasks.0.estimate' is missing; .* and 2 more.;"),
    ],
)
def test_what_is_missing_or_damaged_is_named(finished, tmp_path, damage, says):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    damage(folder)
    with pytest.raises(BfpoError, match=says):
        Evaluation.load(folder)
    for command in (["compare", finished, folder], ["report", folder, "-o", tmp_path / "page"]):
        done = CliRunner().invoke(app, [*map(str, command)])
        assert isinstance(done.exception, BfpoError), done.output
