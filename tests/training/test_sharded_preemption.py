"""Runs whose weights are divided over processes, one of which is stopped or killed: nothing is lost (gloo, CPU)."""

import json
import signal

import pytest
from safetensors.torch import load_file

from bfpo.training.checkpoints import newest_complete_checkpoint
from training.killed_run import resume_and_signal
from training.processes import launched_with, start
from training.sharded_run import without_compiling
from training.test_sharded import ENGINES
from training.tiny_runs import write_material, write_recipe

TERM, KILL = signal.SIGTERM, signal.SIGKILL
SETTINGS = {"precision": "fp32", "max_steps": 5, "save_steps": 2, "logging_steps": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded-preemption")
    write_material(folder)
    return folder


def train_until(recipe, moment, sent):
    """`bfpo train --resume`, which is sent a signal at a moment."""
    without_compiling()
    resume_and_signal(recipe, moment, sent)


def run(engine, recipe, moment=None, sent=TERM):
    """The ends of two processes, of which the second is sent the signal."""
    calls = [(recipe, None, sent), (recipe, moment, sent)]
    running = start(2, launched_with(engine), train_until, *calls)
    # As the launcher does, the first is not waited for long once the second is gone.
    second = running[1].wait(120)
    return [running[0].wait(120 if sent == TERM or moment is None else 10), second]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("sent", "moment", "left"),
    [
        (TERM, ("before a step", 3), "checkpoint-3"),
        (KILL, ("before a step", 4), "checkpoint-2"),
        (KILL, ("before the optimizer is saved", 2), "checkpoint-2"),
    ],
)
def test_a_stopped_or_killed_process_loses_no_checkpoint_and_the_run_ends_the_same(folder, engine, sent, moment, left):
    name = f"{engine}-{sent.name}-{moment[1]}"
    straight, stopped = (write_recipe(folder, f"{name}-{which}", **SETTINGS) for which in ("straight", "stopped"))
    for done in run(engine, straight):
        assert done.returncode == 0, done.stderr[-3000:]
    found = run(engine, stopped, moment, sent)
    if sent == TERM:
        assert [done.returncode for done in found] == [143, 143], found[0].stderr[-3000:]
        assert found[0].stderr.splitlines()[-1].startswith("stopped by SIGTERM: ")
    else:
        assert found[1].returncode == -KILL
        assert found[0].returncode != 0
    checkpoint = newest_complete_checkpoint(stopped.with_suffix(""))
    assert checkpoint is not None
    assert checkpoint.name == left
    for done in run(engine, stopped):
        assert done.returncode == 0, done.stderr[-3000:]
    expected, weights = (load_file(recipe.with_suffix("") / "model.safetensors") for recipe in (straight, stopped))
    for key, value in expected.items():
        assert value.equal(weights[key]), key
    log = json.loads((stopped.with_suffix("") / "run.json").read_text())["log"]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4, 5]
