"""Bands that recipes expect: read, shown by training, and a gate of comparisons."""

import json

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError, RunError
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.suites import load_suite
from bfpo.training.expected import compared, last_metrics
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train
from training.tiny_runs import write_material, write_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    write_material(folder)
    return folder


def test_a_figure_is_in_its_band_ends_included_or_not():
    band = {"a": (0.0, 1.0), "b": (0.0, 1.0), "c": (0.0, 1.0)}
    met = {each.name: each.is_met for each in compared(band, {"a": 1.0, "b": 1.01})}
    assert met == {"a": True, "b": False, "c": False}
    assert [str(each) for each in compared(band, {"a": 1.0, "b": 1.01})] == [
        "a: expected 0 to 1: 1, in", "b: expected 0 to 1: 1.01, outside", "c: expected 0 to 1: not measured",
    ]  # fmt: skip


def test_the_last_value_of_every_metric_counts():
    log = [{"loss": 3.0, "step": 1, "epoch": 0.5}, {"eval_loss": 2.0, "step": 1}, {"loss": 1.0, "step": 2}]
    assert last_metrics(log) == {"loss": 1.0, "eval_loss": 2.0, "step": 2.0, "epoch": 0.5}


@pytest.mark.parametrize("band", [[2, 1], [0, "inf"], [1], "high"])
def test_what_is_no_band_is_named(folder, band):
    with pytest.raises(BfpoError, match="expected"):
        load_recipe(write_recipe(folder, "wrong", expected={"loss": band}))


def test_training_shows_its_metrics_and_a_comparison_fails_outside(folder):
    lines = []
    band = {"loss": [0, 1e9], "rewards/accuracies": [2, 3], "helpful": [0, 1], "attack_success": [2, 3]}
    train(load_recipe(write_recipe(folder, "run", expected=band, logging_steps=1)), say=lines.append)
    shown = [line for line in lines if ": expected " in line]
    assert len(shown) == 2
    assert shown[0].startswith("loss: expected 0 to 1e+09: ")
    assert shown[0].endswith(", in")
    assert shown[1].endswith(", outside")
    config = json.loads((folder / "run" / "run.json").read_text())["config"]
    assert config["expected"]["value"]["loss"] == [0, 1e9]

    runs = []
    for name, model in (("base", folder / "model"), ("mine", folder / "run")):
        evaluate(model, load_suite("microworld", per_kind=4), folder=folder / name)
        runs.append(str(folder / name))
    done = CliRunner().invoke(app, ["compare", *runs])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "run: attack_success: expected 2 to 3: " in done.output
    as_json = CliRunner().invoke(app, ["compare", *runs, "--json"])
    assert "run: attack_success: expected 2 to 3: " in as_json.stderr
    assert json.loads(as_json.stdout)
    gate = CliRunner().invoke(app, ["compare", *runs, "--expected"])
    assert isinstance(gate.exception, RunError)
    assert "rewards/accuracies: expected 2 to 3" in str(gate.exception)
    assert "loss" not in str(gate.exception)
    nothing = CliRunner().invoke(app, ["compare", runs[0], runs[0], "--expected"])
    assert "no model's recipe expects anything" in str(nothing.exception)
