"""Two and three real processes (gloo) match a single one in losses, metrics and weights, also after resuming."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from bfpo.errors import BfpoError
from bfpo.training import checkpoints
from bfpo.training.checkpoints import CheckpointingTrainer
from support import warm
from training import processes
from training.distributed_run import train_and_leave

SCRIPT = Path(__file__).with_name("distributed_run.py")
TESTS = SCRIPT.parents[1]


def launched(folder, processes, steps=6):
    """A run by ``accelerate launch``, as a user starts it."""
    launcher = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--num_processes", str(processes),
        "--main_process_port", "0",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*launcher, str(SCRIPT), str(folder), str(steps)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return results(folder, processes)


def run(folder, processes, steps=6, *options):
    """A run in processes that find each other by the variables that launchers set."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"ACCELERATE_USE_CPU": "true"}
    if processes > 1:
        common |= {"WORLD_SIZE": f"{processes}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    started = [
        warm.start(
            train_and_leave, folder, steps, *options,
            environment=common | ({"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"} if processes > 1 else {}),
        )
        for rank in range(processes)
    ]  # fmt: skip
    for done in [process.wait() for process in started]:
        assert done.returncode == 0, done.stderr[-3000:]
    return results(folder, processes)


def results(folder, processes):
    world_size, log = json.loads((folder / "log.json").read_text())
    assert world_size == processes
    return load_file(folder / "weights.safetensors"), [entry for entry in log if "train_runtime" not in entry]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), 1)


def assert_same(found, expected):
    weights, log = found
    for name, value in expected[0].items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-6)
    compared = 0
    entries = {(entry["step"], "loss" in entry): entry for entry in log}
    for theirs in expected[1]:
        mine = entries[theirs["step"], "loss" in theirs]
        for name, value in theirs.items():
            # At the first step all rewards are zero but for rounding, whose sign means nothing.
            signs = "accura" in name and mine["step"] == 1
            if not signs and not any(part in name for part in ("runtime", "per_second", "flos")):
                assert mine[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
                compared += 1
    assert compared > 50


@pytest.mark.parametrize(("start", "processes"), [(launched, 2), (run, 3)])
def test_processes_change_nothing(tmp_path, alone, start, processes):
    assert_same(start(tmp_path, processes), alone)


def test_a_resumed_run_of_two_processes_ends_in_the_same_place(tmp_path, alone):
    run(tmp_path, 2, 4)
    assert_same(run(tmp_path, 2, 6, "resume"), alone)


def resume_and_count(checkpoint):
    """Resume from a damaged checkpoint; the error, and how many files this process has read for it."""
    read = []
    original = checkpoints.file_sha256
    checkpoints.file_sha256 = lambda path: read.append(path) or original(path)
    PartialState(cpu=True)
    with pytest.raises(BfpoError) as error:
        CheckpointingTrainer.__new__(CheckpointingTrainer).train(checkpoint)
    print(len(read), error.value)
    sys.stdout.flush()
    os._exit(0)


def test_a_checkpoint_is_read_by_one_process_whose_error_reaches_all(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    checkpoints.mark_complete(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weighty")
    group = processes.start(2, {"ACCELERATE_USE_CPU": "true"}, resume_and_count, *[[str(tmp_path)]] * 2)
    told = [process.wait(60) for process in group]
    for done, files in zip(told, (1, 0), strict=True):
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.startswith(f"{files} {tmp_path}: model.safetensors changed since the checkpoint was saved")


def test_the_kl_estimate_of_kto_is_that_of_all_processes(tmp_path):
    alone = run(tmp_path / "alone", 1, 6, "kto")
    assert_same(run(tmp_path / "two", 2, 6, "kto"), alone)
    assert max(entry.get("kl", 0) for entry in alone[1]) > 0.1
