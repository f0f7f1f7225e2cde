"""What a run shows where its output is not a terminal, and failures that the disk causes."""

import io
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from bfpo.errors import RunError
from bfpo.files import explained_full_disk
from bfpo.training.progress import ProgressLine, ReferenceProgress
from models import tiny_llama
from support import warm
from training.rows import pairs, word_tokenizer

resource = pytest.importorskip("resource", reason="limits on a process's files are read as on Linux")


def plain_console():
    return Console(file=io.StringIO(), width=200)


def state(step):
    return SimpleNamespace(global_step=step, max_steps=10, is_world_process_zero=True)


def test_a_log_is_a_line_and_so_is_an_evaluation():
    console = plain_console()
    progress = ProgressLine(console, groups_per_step=4)
    progress.on_train_begin(None, state(4), None)
    for step in (5, 6):
        progress.on_step_end(None, state(step), None)
    metrics = {"loss": 0.25, "learning_rate": 4.99987e-7, "cells/SU/count": 3.0, "cells/SU/sign_accuracy": 1.0}
    progress.on_log(None, state(6), None, metrics)
    progress.on_log(None, state(6), None, {"eval_near_loss": 0.5})
    progress.on_log(None, state(6), None, {"train_runtime": 1.0})
    progress.on_train_end(None, state(6), None)
    first, second = console.file.getvalue().splitlines()
    assert first.startswith("step 6/10  ")
    assert "groups/s  loss 0.25  lr 5e-07  SU sign 100%" in first
    assert second == "step 6/10  eval_near_loss 0.5"


def test_only_the_main_process_writes():
    console = plain_console()
    progress = ProgressLine(console, groups_per_step=4)
    other = state(1)
    other.is_world_process_zero = False
    progress.on_train_begin(None, other, None)
    progress.on_log(None, other, None, {"loss": 0.25, "learning_rate": 1e-6})
    assert not console.file.getvalue()


@pytest.mark.parametrize("started", [False, True])
def test_a_terminal_gets_its_cursor_back_however_training_ends(started):
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    progress = ProgressLine(console, groups_per_step=4)
    if started:
        progress.on_train_begin(None, state(4), None)
    progress.progress.stop()
    written = console.file.getvalue()
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == started


def test_the_reference_pass_ends_with_a_line():
    console = plain_console()
    progress = ReferenceProgress(console)
    progress(10, 2_000)
    progress(2_000, 2_000)
    assert console.file.getvalue().splitlines() == ["reference: 2,000 of 2,000 answers scored"]


@pytest.fixture
def recipe(tmp_path):
    tiny_llama(hidden_size=64).save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    pairs(12).to_json(tmp_path / "pairs.jsonl")
    values = {
        "stage": "preference", "model": str(tmp_path / "model"), "data": [{"path": str(tmp_path / "pairs.jsonl")}],
        "output_dir": str(tmp_path / "run"), "batch_size": 4, "max_steps": 2, "save_steps": 1, "logging_steps": 1,
        "reference_cache": None,
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def train_with_little_room(recipe):
    """`bfpo train` where no file may grow beyond 60,000 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    warm.command("train", recipe)


def test_a_run_without_a_terminal_shows_every_step(recipe):
    done = warm.bfpo("train", recipe)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert "reference: 24 of 24 answers scored" in lines
    steps = [line.split("  ") for line in lines if line.startswith("step ")]
    assert [parts[0] for parts in steps] == ["step 1/2", "step 2/2"]
    # The first of two steps is warmup, which starts at 0.
    assert [parts[4] for parts in steps] == ["lr 0", "lr 5e-07"]
    assert f"loading {recipe.parent / 'model'}" in done.stdout


def test_a_full_disk_is_one_sentence(recipe):
    """Weights of more than the limit can't be written; a signal would say so where Python doesn't ignore it."""
    done = warm.run(train_with_little_room, str(recipe))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "can't be written" in done.stderr
    assert "free space, then continue with --resume" in done.stderr


def test_other_failures_stay_what_they_are(tmp_path):
    with pytest.raises(KeyError), explained_full_disk(tmp_path):
        raise KeyError
    with pytest.raises(RunError, match="No space left on device"), explained_full_disk(tmp_path):
        raise OSError(28, "No space left on device")
    with pytest.raises(RunError, match="Permission denied"), explained_full_disk(tmp_path):
        raise PermissionError(13, "Permission denied", str(tmp_path / "checkpoint-2"))
    # What a user's callback or a tracker did is not the output's.
    for error in (ConnectionRefusedError(111, "Connection refused"), FileNotFoundError(2, "No such file", "/words")):
        with pytest.raises(type(error)), explained_full_disk(tmp_path):
            raise error
