"""``bfpo dial``: the place of b3 between two runs, what it refuses, and the evaluation of its file."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.generation.dial_file import dial_between, load_dial
from bfpo.generation.protocol import Decoding, sample_requests
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train
from training.tiny_runs import write_material, write_recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A tiny model trained at b3 1 and 1/8, at b3 1 with another beta, and with DPO."""
    folder = tmp_path_factory.mktemp("corners")
    write_material(folder)
    kinds = {
        "safe": {"b1": 2.0}, "free": {"b1": 9.0}, "beta": {"b1": 2.0, "beta": 0.4}, "dpo": {"loss_type": "dpo"},
        "short": {"b1": 2.0, "max_steps": 1},
    }  # fmt: skip
    for name, own in kinds.items():
        train(load_recipe(write_recipe(folder, name, **{"max_steps": 3, **own})))
    return folder


def bfpo(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False).output


def test_the_file_names_the_place_and_answers(runs, tmp_path):
    output = bfpo("dial", runs / "safe", runs / "free", "--b3", "0.3", "-o", tmp_path / "dial.json")
    # 1/(9 - 1) to 1/(2 - 1), whichever is named first.
    assert f"b3 0.3 is 0.200 of the way from {runs / 'free'} to {runs / 'safe'}." in output
    found = load_dial(tmp_path / "dial.json")
    assert (found.low, found.high, found.share) == (str(runs / "free"), str(runs / "safe"), pytest.approx(0.2))
    dial = found.load_models()
    answers = dial.generate(sample_requests({"a": "w1"}, Decoding()), Decoding(1.0, 1.0, max_new_tokens=4))
    assert answers[0].tokens is not None
    assert dial.identity.digest != dial.low.identity.digest


def test_the_drift_is_measured_on_prompts(runs, tmp_path):
    (tmp_path / "prompts.txt").write_text("w1 w2\nw3\nw4\n")
    output = bfpo(
        "dial", runs / "safe", runs / "free", "--b3", "0.5", "-o", tmp_path / "dial.json",
        "--prompts", tmp_path / "prompts.txt", "--limit", "2",
    )  # fmt: skip
    assert "off in total variation (2 prompts, 64 answers each" in output


def test_the_file_is_evaluated_and_its_candidates_are_counted(runs, tmp_path):
    bfpo("dial", runs / "safe", runs / "free", "--b3", "0.5", "-o", tmp_path / "dial.json")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "w1 w2"}\n{"prompt": "w3"}\n')
    task = {
        "task": "asks", "factor": "harmless", "license": "CC0-1.0", "source": {"file": "prompts.jsonl"},
        "kind": "harmful", "prompt": "{{ prompt }}",
    }  # fmt: skip
    suite = {"suite": "own", "about": "Mine.", "tasks": [task]}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(suite))
    result = CliRunner().invoke(
        app,
        ["evaluate", str(tmp_path / "dial.json"), "--suite", str(tmp_path / "own.yaml"), "-o", str(tmp_path / "run"),
         "--judge", "keywords", "--max-new-tokens", "4", "--name", "middle"],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "middle: answers: 2" in result.output
    assert "middle: candidates: " in result.output
    header = json.loads((tmp_path / "run" / "run.json").read_text())
    assert header["decoding"]["dial"] == {"share": pytest.approx(3 / 7), "candidates": 32}
    assert (header["decoding"]["temperature"], header["decoding"]["top_p"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("first", "second", "b3", "message"),
    [
        ("safe", "free", 2.0, "b3 2 is not between those of the two models, 0.125 and 1"),
        ("safe", "safe", 1.0, "the same b3, 1: train one with another b1"),
        ("beta", "free", 0.5, "differ in beta .0.3 and 0.4.: train both from one recipe that differs in b1 only"),
        ("short", "free", 0.5, "differ in max_steps .3 and 1.: train both"),
        ("dpo", "free", 0.5, "trained with dpo; only BFPO's models have a dial"),
        ("model", "free", 0.5, "no finished training run"),
    ],
)
def test_what_has_no_dial_is_refused(runs, first, second, b3, message):
    with pytest.raises(BfpoError, match=message):
        dial_between(runs / first, runs / second, b3)


@pytest.mark.parametrize(("b3", "share"), [(0.125 - 1e-15, 0.0), (1 + 1e-12, 1.0)])
def test_an_end_given_with_a_rounding_error_is_that_end(runs, b3, share):
    assert dial_between(runs / "safe", runs / "free", b3).share == share


def test_only_a_dial_is_overwritten(runs, tmp_path):
    path = tmp_path / "fitted.json"
    path.write_text('{"b1": 3}')
    with pytest.raises(BfpoError, match="would overwrite a file that is not a dial"):
        bfpo("dial", runs / "safe", runs / "free", "--b3", "0.3", "-o", path)
    assert path.read_text() == '{"b1": 3}'
    path.unlink()
    for b3 in ("0.3", "0.4"):
        bfpo("dial", runs / "safe", runs / "free", "--b3", b3, "-o", path)
    assert load_dial(path).b3 == 0.4


def test_its_models_are_found_from_any_folder(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs)
    bfpo("dial", "safe", "free", "--b3", "0.3", "-o", tmp_path / "dial.json")
    monkeypatch.chdir(tmp_path)
    assert load_dial(tmp_path / "dial.json").load_models().share == pytest.approx(0.2)


@pytest.mark.parametrize("text", ["", "[]", '{"format": "other"}', '{"format": "bfpo-dial-1", "low": "a"}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "dial.json").write_text(text)
    with pytest.raises(BfpoError, match=r"dial\.json"):
        load_dial(tmp_path / "dial.json")
