"""Training by engines that divide the weights (real processes, gloo) matches one process, and saves whole models."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bfpo.models import load_model
from models import tiny_llama
from support import warm
from training.processes import launched_with, run, start
from training.rows import pairs
from training.sharded_run import RUNS, train_and_leave
from training.tiny_runs import write_material, write_recipe

# Largest difference in a weight, and relative in a loss, by run; 1e-5 for others.
TOLERANCE = {"exact": 1e-9, "bf16": 2e-2}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    run(1, {}, train_and_leave, folder, *RUNS)
    return {name: result(folder, name, 1) for name in RUNS}


def result(folder, name, processes):
    """Weights of a run by process, and its log; the model of every process is the same."""
    found = json.loads((folder / name / "result.json").read_text())
    assert found["processes"] == processes
    first, *others = [load_file(folder / name / f"weights-{rank}.safetensors") for rank in range(processes)]
    assert all(value.equal(other[key]) for other in others for key, value in first.items())
    return first, found["log"], found["engine"]


def assert_same(name, found, expected):
    tolerance = TOLERANCE.get(name, 1e-5)
    assert found[0].keys() == expected[0].keys()
    for key, value in expected[0].items():
        torch.testing.assert_close(found[0][key], value, rtol=0, atol=tolerance, msg=f"{name}: {key}")
    compared = 0
    for mine, theirs in zip(found[1], expected[1], strict=True):
        # The loss of a step and its gradient are logged in float32; after some updates their errors have grown.
        for figure, own in (("loss", 1e-6), ("grad_norm", 1e-6), ("eval_loss", tolerance), ("kl", 1e-4)):
            if figure in theirs:
                wanted = pytest.approx(theirs[figure], rel=max(own, 10 * tolerance), abs=1e-6)
                assert mine[figure] == wanted, (name, figure, theirs["step"])
                compared += 1
    assert compared >= 14


def assert_saved_whole(folder, name, trained):
    """What was saved is the whole trained model, or the adapter with all its weights."""
    if name == "lora":
        base = AutoModelForCausalLM.from_config(load_config(folder)).float()
        adapter = PeftModel.from_pretrained(base, folder / "saved")
        saved = {key: value for key, value in adapter.named_parameters() if "lora_" in key}
        expected = {key: value for key, value in trained.items() if "lora_" in key}
        assert len(expected) == 28
    else:
        saved, expected = dict(load_model(folder / "saved", dtype=torch.float64).named_parameters()), trained
    assert saved.keys() == expected.keys()
    for key, value in expected.items():
        own = value.bfloat16() if name == "bf16" else value
        assert saved[key].double().equal(own.double()), key


def load_config(folder):
    return tiny_llama().config


def test_two_processes_of_fsdp2_change_nothing(tmp_path, alone):
    run(2, launched_with("fsdp2"), train_and_leave, tmp_path, *RUNS)
    for name in RUNS:
        found = result(tmp_path, name, 2)
        assert found[2] == "FSDPModule"
        assert_same(name, found, alone[name])
        assert_saved_whole(tmp_path / name, name, found[0])
