"""Training that is asked to end (real SIGTERM and SIGINT): a checkpoint of the step, an exit code, and the same end."""

import json
import signal
import socket

import pytest
from safetensors.torch import load_file

from bfpo.training.checkpoints import newest_complete_checkpoint
from support import warm
from training.killed_run import resume_and_signal
from training.tiny_runs import write_material, write_recipe

TERM, INT = signal.SIGTERM, signal.SIGINT
# The second epoch ends within the run, and no checkpoint is due but at a signal.
SETTINGS = {"max_steps": 7, "logging_steps": 3, "save_total_limit": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preemption")
    write_material(folder)
    return folder


def run(recipe, moment=None, sent=TERM, processes=1):
    """`bfpo train --resume` in as many processes, of which the last is sent the signal."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    started = [
        warm.start(
            resume_and_signal, recipe, moment if rank == processes - 1 else None, sent,
            environment=group | {"WORLD_SIZE": f"{processes}", "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}
            if processes > 1
            else {},
        )
        for rank in range(processes)
    ]  # fmt: skip
    return [process.wait(60) for process in started]


def saved(recipe):
    checkpoint = newest_complete_checkpoint(recipe.with_suffix(""))
    return checkpoint and checkpoint.name


def last_line(done):
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def assert_same_end(straight, stopped):
    """The same bits of every weight, and the same evaluations."""
    expected, found = (load_file(recipe.with_suffix("") / "model.safetensors") for recipe in (straight, stopped))
    for name, tensor in expected.items():
        assert tensor.equal(found[name]), name
    logs = [json.loads((recipe.with_suffix("") / "run.json").read_text())["log"] for recipe in (straight, stopped)]
    evaluations = [[(entry["step"], entry["eval_loss"]) for entry in log if "eval_loss" in entry] for log in logs]
    assert evaluations[0] == evaluations[1]


@pytest.mark.parametrize(("sent", "code"), [(TERM, 143), (INT, 130)])
def test_a_stopped_run_saves_its_step_and_ends_in_the_same_bits(folder, sent, code):
    straight, stopped = (write_recipe(folder, f"{name}-{code}", **SETTINGS) for name in ("straight", "stopped"))
    [done] = run(straight)
    assert done.returncode == 0, done.stderr
    for moment, checkpoint in ((("before a step", 2), "checkpoint-2"), (("before a step", 3), "checkpoint-5")):
        [done] = run(stopped, moment, sent)
        assert done.returncode == code, done.stderr
        assert saved(stopped) == checkpoint
        assert last_line(done) == (
            f"stopped by {sent.name}: {stopped.with_suffix('') / checkpoint} is saved; run it again with --resume to "
            "continue"
        )
    [done] = run(stopped)
    assert done.returncode == 0, done.stderr
    assert_same_end(straight, stopped)
    assert [step for step, _ in losses(stopped)] == [2, 3, 5, 6, 7]


def losses(recipe):
    """The steps and losses of the log."""
    log = json.loads((recipe.with_suffix("") / "run.json").read_text())["log"]
    return [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]


def evaluated_steps(recipe, checkpoint):
    state = json.loads((recipe.with_suffix("") / checkpoint / "trainer_state.json").read_text())
    return [entry["step"] for entry in state["log_history"] if "eval_loss" in entry]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_during_an_evaluation_leaves_it_and_it_is_done_again(folder, processes):
    settings = SETTINGS | {"eval_fraction": 0.3, "eval_steps": 2, "max_steps": 6}
    straight, stopped = (
        write_recipe(folder, f"{name}-evaluated-{processes}", **settings) for name in ("straight", "stopped")
    )
    assert run(straight, processes=processes)[0].returncode == 0
    # The second time within the evaluation that is done again, and at last within that of the last step.
    for number, checkpoint in ((2, "checkpoint-4"), (1, "checkpoint-4"), (2, "checkpoint-6")):
        done = run(stopped, ("in an evaluation", number), processes=processes)
        assert [one.returncode for one in done] == [143] * processes, done[0].stderr
        assert saved(stopped) == checkpoint
        assert last_line(done[0]).startswith(f"stopped by SIGTERM: {stopped.with_suffix('') / checkpoint} is saved")
        assert evaluated_steps(stopped, checkpoint) == ([2] if checkpoint == "checkpoint-4" else [2, 4])
    assert run(stopped, processes=processes)[0].returncode == 0
    assert_same_end(straight, stopped)
    # The fourth step, whose evaluation was left, is logged by itself, and the next two as the mean of the rest.
    [_, whole], [_, fourth, rest] = losses(straight), losses(stopped)
    assert (fourth[0], rest[0]) == (4, 6)
    assert fourth[1] + 2 * rest[1] == pytest.approx(3 * whole[1])


def test_a_signal_before_an_evaluation_does_not_wait_for_it(folder):
    settings = SETTINGS | {"eval_fraction": 0.3, "eval_steps": 2}
    straight, stopped = (write_recipe(folder, f"{name}-before", **settings) for name in ("straight", "stopped"))
    assert run(straight)[0].returncode == 0
    [done] = run(stopped, ("before a step", 2))
    assert (done.returncode, saved(stopped)) == (143, "checkpoint-2"), done.stderr
    assert evaluated_steps(stopped, "checkpoint-2") == []
    assert run(stopped)[0].returncode == 0
    assert_same_end(straight, stopped)


def test_the_best_checkpoint_and_early_stopping_are_those_of_a_straight_run(folder):
    """No evaluation after the first is a new best, since nothing is learned; the stopped one is the last."""
    settings = SETTINGS | {
        "eval_fraction": 0.3, "eval_steps": 2, "save_steps": 2, "keep_best": True, "early_stopping_patience": 2,
        "learning_rate": 1e-12, "max_steps": 20,
    }  # fmt: skip
    straight, stopped = (write_recipe(folder, f"{name}-best", **settings) for name in ("straight", "stopped"))
    assert run(straight)[0].returncode == 0
    # The last time within the evaluation that uses the patience up, which an earlier process began to count.
    for number, checkpoint in ((2, "checkpoint-4"), (2, "checkpoint-6")):
        [done] = run(stopped, ("in an evaluation", number))
        assert (done.returncode, saved(stopped)) == (143, checkpoint), done.stderr
    [done] = run(stopped)
    assert done.returncode == 0, done.stderr
    assert_same_end(straight, stopped)
    records = [json.loads((recipe.with_suffix("") / "run.json").read_text()) for recipe in (straight, stopped)]
    assert records[0]["steps"] == records[1]["steps"] == 6


def test_an_evaluation_of_the_last_step_that_is_left_is_done_again(folder):
    """To keep the best, the last step is evaluated, too, whatever the interval."""
    settings = SETTINGS | {"eval_fraction": 0.3, "eval_steps": 2, "save_steps": 2, "keep_best": True, "max_steps": 5}
    straight, stopped = (write_recipe(folder, f"{name}-last", **settings) for name in ("straight", "stopped"))
    assert run(straight)[0].returncode == 0
    [done] = run(stopped, ("in an evaluation", 3))
    assert (done.returncode, saved(stopped)) == (143, "checkpoint-5"), done.stderr
    assert run(stopped)[0].returncode == 0
    assert_same_end(straight, stopped)


def test_a_run_killed_where_it_stops_early_takes_no_further_step(folder):
    settings = SETTINGS | {
        "eval_fraction": 0.3, "eval_steps": 1, "save_steps": 1, "keep_best": True, "early_stopping_patience": 2,
        "learning_rate": 1e-12, "max_steps": 20, "save_total_limit": 2,
    }  # fmt: skip
    killed = write_recipe(folder, "killed-early", **settings)
    [done] = run(killed, ("before the model is saved", 1), signal.SIGKILL)
    assert (done.returncode, saved(killed)) == (-signal.SIGKILL, "checkpoint-3")
    assert run(killed)[0].returncode == 0
    assert json.loads((killed.with_suffix("") / "run.json").read_text())["steps"] == 3


def test_a_run_with_a_checkpoint_of_its_last_step_takes_no_further_one(folder):
    """Killed while it saves the model, a run has taken all of its steps."""
    settings = {"max_steps": 4, "save_steps": 2, "learning_rate": 1e-2, "lr_scheduler_type": "constant"}
    straight, killed = (write_recipe(folder, f"{name}-saved", **settings) for name in ("straight", "killed"))
    assert run(straight)[0].returncode == 0
    [done] = run(killed, ("before the model is saved", 1), signal.SIGKILL)
    assert (done.returncode, saved(killed)) == (-signal.SIGKILL, "checkpoint-4")
    assert run(killed)[0].returncode == 0
    assert_same_end(straight, killed)
    assert json.loads((killed.with_suffix("") / "run.json").read_text())["steps"] == 4


def test_before_the_first_step_nothing_is_left_and_the_same_command_starts(folder):
    recipe = write_recipe(folder, "early", **SETTINGS)
    [done] = run(recipe, ("before the data", 1))
    assert done.returncode == 143
    assert last_line(done) == "stopped by SIGTERM: run it again with --resume to continue"
    assert not recipe.with_suffix("").exists()
    assert run(recipe)[0].returncode == 0


@pytest.mark.parametrize("moment", [("before a step", 7), ("before the weights are saved", 1)])
def test_a_run_that_is_about_to_finish_finishes(folder, moment):
    recipe = write_recipe(folder, f"late-{moment[1]}", **SETTINGS)
    [done] = run(recipe, moment)
    assert done.returncode == 0, done.stderr
    assert json.loads((recipe.with_suffix("") / "run.json").read_text())["finished"]
    assert saved(recipe) is None


def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(folder):
    straight, stopped = (write_recipe(folder, f"{name}-two", **SETTINGS) for name in ("straight", "stopped"))
    assert [done.returncode for done in run(straight, processes=2)] == [0, 0]
    found = run(stopped, ("before a step", 3), processes=2)
    assert [done.returncode for done in found] == [143, 143], found[0].stderr
    assert saved(stopped) == "checkpoint-3"
    assert last_line(found[0]).startswith("stopped by SIGTERM: ")
    assert "stopped by" not in found[1].stderr
    assert [done.returncode for done in run(stopped, processes=2)] == [0, 0]
    assert_same_end(straight, stopped)


def train_and_press_twice(recipe):
    """Ctrl-C before the third step, and again within it."""
    from training.killed_run import signal_at

    signal_at("before a step", 3, INT)
    signal_at("before a step", 3, INT)
    warm.command("train", str(recipe))


def test_a_second_ctrl_c_does_not_wait_for_the_step(folder):
    recipe = write_recipe(folder, "twice", **SETTINGS)
    done = warm.run(train_and_press_twice, recipe)
    assert done.returncode == 130, done.stderr
    assert last_line(done) == "stopped by SIGINT: run it again with --resume to continue"
    assert saved(recipe) is None
