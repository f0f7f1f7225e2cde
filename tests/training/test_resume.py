"""Killed at any moment and resumed, a run ends in the same bits: real processes, real SIGKILL."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from bfpo.errors import BfpoError
from bfpo.training.checkpoints import mark_complete, newest_complete_checkpoint, remove_incomplete_checkpoints
from bfpo.training.recipe import load_recipe
from bfpo.training.run import run_recipe
from models import tiny_llama
from training.rows import pairs, word_tokenizer

SCRIPT = Path(__file__).with_name("killed_run.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model and two files of pairs."""
    folder = tmp_path_factory.mktemp("resume")
    tiny_llama().save_pretrained(folder / "model")
    word_tokenizer().save_pretrained(folder / "model")
    pairs(22).to_json(folder / "safety.jsonl")
    pairs(9, seed=1, safety=False).to_json(folder / "helpful.jsonl")
    return folder


def recipe_file(folder, name, **changes):
    recipe = {
        "stage": "preference",
        "model": str(folder / "model"),
        "data": [
            {"path": str(folder / "safety.jsonl")},
            {"path": str(folder / "helpful.jsonl"), "role": "buffer", "unknown_safety": 1.0},
        ],
        "output_dir": str(folder / name),
        "beta": 0.3,
        "learning_rate": 0.002,
        "batch_size": 8,
        "num_train_epochs": 2,
        "micro_batch_tokens": 100,
        "save_steps": 2,
        "save_total_limit": 1,
        "logging_steps": 1,
    } | changes
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def run(recipe, moment="never", number=0):
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(recipe), moment, str(number)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_killed_run_ends_in_the_same_bits(folder):
    straight, killed = recipe_file(folder, "straight"), recipe_file(folder, "killed")
    assert run(straight).returncode == 0
    for moment, number in [
        ("before the weights are saved", 1),
        ("before a step", 4),
        ("before the optimizer is saved", 1),
        ("before the random state is saved", 1),
        ("before the marker", 2),
        ("before old checkpoints go", 1),
        ("before a step", 2),
    ]:
        assert run(killed, moment, number).returncode == -signal.SIGKILL, moment
    finished = run(killed)
    assert finished.returncode == 0, finished.stderr

    expected, found = (load_file(folder / name / "model.safetensors") for name in ("straight", "killed"))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert tensor.equal(found[name]), name
    logs = [json.loads((folder / name / "run.json").read_text())["log"] for name in ("straight", "killed")]
    losses = [[(entry["step"], entry["loss"]) for entry in log if "loss" in entry] for log in logs]
    assert losses[0] == losses[1]


def test_a_finished_run_is_not_overwritten_and_a_changed_one_not_resumed(folder):
    recipe = recipe_file(folder, "once", max_steps=1, save_steps=1)
    run_recipe(load_recipe(recipe))
    with pytest.raises(BfpoError, match="holds an earlier run"):
        run_recipe(load_recipe(recipe))
    with pytest.raises(BfpoError, match="another value of learning_rate"):
        run_recipe(load_recipe(recipe, ["learning_rate=0.1"]), resume=True)


def test_only_marked_checkpoints_count(tmp_path):
    for step in (2, 10, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert newest_complete_checkpoint(tmp_path) is None
    for step in (2, 4):
        mark_complete(tmp_path / f"checkpoint-{step}")
    assert newest_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert remove_incomplete_checkpoints(tmp_path) == [tmp_path / "checkpoint-10"]
    assert newest_complete_checkpoint(tmp_path / "nowhere") is None
