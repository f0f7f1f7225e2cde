"""``bfpo train --resume``, ``bfpo ref`` and ``bfpo quickstart`` as a user has them: in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from models import tiny_llama
from training.rows import pairs, word_tokenizer
from training.test_resume import recipe_file

CPU = os.environ | {"CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model and two files of pairs, as `recipe_file` names them."""
    folder = tmp_path_factory.mktemp("commands")
    tiny_llama().save_pretrained(folder / "model")
    word_tokenizer().save_pretrained(folder / "model")
    pairs(22).to_json(folder / "safety.jsonl")
    pairs(9, seed=1, safety=False).to_json(folder / "helpful.jsonl")
    return folder


def command(*arguments):
    return [sys.executable, "-m", "bfpo", *map(str, arguments)]


def bfpo(*arguments):
    return subprocess.run(command(*arguments), env=CPU, capture_output=True, text=True, timeout=300, check=False)


def killed_after_its_first_checkpoint(*arguments, folder):
    """Start the command, kill it (SIGKILL) as soon as there is something to resume from, and give its exit code."""
    process = subprocess.Popen(command(*arguments), env=CPU, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while process.poll() is None and not list(folder.glob("checkpoint-*/complete")) and time.monotonic() < until:
        time.sleep(0.002)
    process.kill()
    return process.wait()


def test_train_resumes_a_killed_run_to_the_same_bits(folder):
    changes = {"num_train_epochs": 12, "save_steps": 10}
    straight, killed = (recipe_file(folder, name, **changes) for name in ("straight", "killed"))
    done = bfpo("train", straight, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == str(folder / "straight")
    assert killed_after_its_first_checkpoint("train", killed, folder=folder / "killed") == -signal.SIGKILL
    assert not json.loads((folder / "killed" / "run.json").read_text())["finished"]

    refused = bfpo("train", killed)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    changed = bfpo("train", killed, "--resume", "--set", "learning_rate=0.1")
    assert changed.returncode == 2
    assert "another value of learning_rate" in changed.stderr
    resumed = bfpo("train", killed, "--resume")
    assert resumed.returncode == 0, resumed.stderr

    expected, found = (load_file(folder / name / "model.safetensors") for name in ("straight", "killed"))
    assert expected.keys() == found.keys()
    assert [name for name, value in expected.items() if not value.equal(found[name])] == []
    record = json.loads((folder / "killed" / "run.json").read_text())
    assert record["finished"]
    assert [entry["step"] for entry in record["log"] if "loss" in entry] == list(range(1, 73))


def test_ref_build_scores_what_training_then_finds(folder):
    cache = folder / "cache"
    recipe = recipe_file(folder, "built", reference_cache=str(cache), max_steps=1, save_steps=None)
    done = bfpo("ref", "build", recipe)
    assert done.returncode == 0, done.stderr
    assert "62 answers scored, 0 were there already" in done.stdout
    assert not list(folder.glob("built/*"))
    (entry,) = json.loads(bfpo("ref", "show", cache, "--json").stdout)
    assert (entry["answers"], entry["damaged"]) == (62, [])
    assert bfpo("train", recipe).returncode == 0
    record = json.loads((folder / "built" / "run.json").read_text())
    assert (record["reference"]["scored"], record["reference"]["reused"]) == (0, 62)

    for file in Path(entry["folder"]).glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    damaged = bfpo("ref", "verify", cache)
    assert damaged.returncode == 1
    assert "damaged" in damaged.stdout
    nowhere = bfpo("ref", "build", recipe, "--set", "reference_cache=null")
    assert nowhere.returncode == 2
    assert "reference_cache is null" in nowhere.stderr
