"""Tests of ``bfpo train``, killed and resumed, and of ``bfpo ref build``, in processes of their own."""

import json
import os
import signal
import subprocess
import sys

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from models import tiny_llama
from support import warm
from training.rows import pairs, word_tokenizer
from training.test_resume import recipe_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model and two files of pairs, as `recipe_file` names them."""
    folder = tmp_path_factory.mktemp("commands")
    tiny_llama().save_pretrained(folder / "model")
    word_tokenizer().save_pretrained(folder / "model")
    pairs(22).to_json(folder / "safety.jsonl")
    pairs(9, seed=1, safety=False).to_json(folder / "helpful.jsonl")
    return folder


def bfpo(*arguments):
    """Run the command as a user would and return its output."""
    command = [sys.executable, "-m", "bfpo", *map(str, arguments)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def bfpo_here(*arguments):
    """Run the command in this process and return its output."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def refused(*arguments):
    """Run the command in this process and return the error that `main` prints."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(done.exception, BfpoError), done.output
    return str(done.exception)


def killed_after_its_first_checkpoint(*arguments, folder):
    """Start the command, kill it (SIGKILL) at the first checkpoint, and return its exit code."""
    return warm.start_bfpo(*arguments).kill_when(lambda: list(folder.glob("checkpoint-*/complete"))).returncode


def changes(folder):
    return {"num_train_epochs": 12, "save_steps": 10, "reference_cache": str(folder / "cache")}


@pytest.fixture(scope="module")
def straight(folder):
    """Output of ``ref build``, and an uninterrupted run after it."""
    recipe = recipe_file(folder, "straight", **changes(folder))
    printed = bfpo_here("ref", "build", recipe)
    assert not list(folder.glob("straight/*"))
    (described,) = json.loads(bfpo_here("ref", "show", folder / "cache", "--json"))
    done = warm.bfpo("train", recipe, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["folder"] == str(folder / "straight")
    return printed, described


def test_ref_build_scores_what_training_then_finds(folder, straight):
    printed, described = straight
    assert "62 answers scored, 0 already in the cache" in printed
    assert (described["answers"], described["damaged"]) == (62, [])
    record = json.loads((folder / "straight" / "run.json").read_text())
    assert (record["reference"]["scored"], record["reference"]["reused"]) == (0, 62)
    nowhere = refused("ref", "build", folder / "straight.yaml", "--set", "reference_cache=null")
    assert "reference_cache is null" in nowhere


def test_train_resumes_a_killed_run_to_the_same_bits(folder, straight):
    killed = recipe_file(folder, "killed", **changes(folder))
    assert killed_after_its_first_checkpoint("train", killed, folder=folder / "killed") == -signal.SIGKILL
    assert not json.loads((folder / "killed" / "run.json").read_text())["finished"]
    assert "--resume" in refused("train", killed)
    changed = refused("train", killed, "--resume", "--set", "learning_rate=0.1")
    assert "learning_rate was" in changed
    bfpo("train", killed, "--resume")

    expected, found = (load_file(folder / name / "model.safetensors") for name in ("straight", "killed"))
    assert expected.keys() == found.keys()
    assert [name for name, value in expected.items() if not value.equal(found[name])] == []
    record = json.loads((folder / "killed" / "run.json").read_text())
    assert record["finished"]
    assert [entry["step"] for entry in record["log"] if "loss" in entry] == list(range(1, 73))
