"""Training by engines that divide the weights (real processes, gloo) matches one process, and saves whole models."""

import json
from importlib.util import find_spec

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bfpo.errors import BfpoError
from bfpo.models import load_model
from bfpo.training.earlier_run import earlier_run
from models import tiny_llama
from support import warm
from training.processes import launched_with, run
from training.rows import pairs
from training.sharded_run import RUNS, train_and_leave, train_recipes
from training.tiny_runs import write_material, write_recipe

# Largest difference in a weight, and relative in a loss, by run; 1e-5 for others. DeepSpeed computes in bfloat16 alone.
TOLERANCE = {"exact": 1e-9, "bf16": 3e-2}
DEEPSPEED = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs pip install 'bfpo[deepspeed]'")
ENGINES = ["fsdp2", pytest.param("zero2", marks=DEEPSPEED), pytest.param("zero3", marks=DEEPSPEED)]
# Share of the weights that each of two processes holds between passes.
HELD = {"fsdp2": 0.5, "zero2": 1.0, "zero3": 0.0}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    run(1, {}, train_and_leave, folder, *RUNS)
    return {name: result(folder, name, 1) for name in RUNS}


def result(folder, name, processes):
    """Weights of a run, which are the same in every process, its log, and the share of the weights that one holds."""
    found = json.loads((folder / name / "result.json").read_text())
    assert found["processes"] == processes
    first, *others = [load_file(folder / name / f"weights-{rank}.safetensors") for rank in range(processes)]
    assert all(value.equal(other[key]) for other in others for key, value in first.items())
    return first, found["log"], found["part"]


def assert_same(name, found, expected):
    tolerance = TOLERANCE.get(name, 1e-5)
    assert found[0].keys() == expected[0].keys()
    for key, value in expected[0].items():
        torch.testing.assert_close(found[0][key].to(value), value, rtol=0, atol=tolerance, msg=f"{name}: {key}")
    compared = 0
    for mine, theirs in zip(found[1], expected[1], strict=True):
        # Losses and norms are about 100 and logged in float32; after some updates the errors have grown.
        first = {"bf16": 1e-2, "untied": 1e-5}.get(name, 1e-6)
        for figure in {"loss", "grad_norm", "eval_loss", "kl"} & theirs.keys():
            relative = first if mine["step"] == 1 else max(first, 10 * tolerance)
            assert mine[figure] == pytest.approx(theirs[figure], rel=relative, abs=1e-6), (name, figure, mine["step"])
            compared += 1
    assert compared >= 14


def assert_saved_whole(folder, name, trained):
    """What was saved is the whole trained model, or the adapter with all its weights."""
    if name == "lora":
        base = AutoModelForCausalLM.from_config(tiny_llama().config).float()
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


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_change_nothing(tmp_path, alone, engine):
    # DeepSpeed has no float64.
    names = [name for name in RUNS if engine == "fsdp2" or name != "exact"]
    run(2, launched_with(engine), train_and_leave, tmp_path, *names)
    for name in names:
        found = result(tmp_path, name, 2)
        # FSDP divides the first dimension, which may be odd.
        assert found[2] == pytest.approx(HELD[engine], abs=0.1)
        assert_same(name, found, alone[name])
        assert_saved_whole(tmp_path / name, name, found[0])


def test_three_processes_of_which_two_have_nothing_in_some_steps(tmp_path, alone):
    run(3, launched_with("fsdp2"), train_and_leave, tmp_path, "exact")
    assert_same("exact", result(tmp_path, "exact", 3), alone["exact"])


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """A folder of recipes for every engine, and for one process, which has run them."""
    folder = tmp_path_factory.mktemp("recipes")
    write_material(folder)
    pairs(6, seed=3).to_json(folder / "held-out.jsonl")
    common = {
        "precision": "fp32", "max_steps": 4, "save_steps": 1, "micro_batch_tokens": 40, "lr_scheduler_type": "constant",
    }  # fmt: skip
    best = {"eval_data": {"path": str(folder / "held-out.jsonl")}, "eval_steps": 1, "keep_best": True}
    lora = {"lora": {"r": 2, "target_modules": "all-linear"}, "learning_rate": 0.002}
    paths = {}
    for engine in ("one", *HELD):
        paths[engine] = {
            "best": write_recipe(folder, f"{engine}-best", **common, **best, learning_rate=0.05),
            "lora": write_recipe(folder, f"{engine}-lora", **common, **lora),
        }
    run(1, {}, train_recipes, *((path, (), False) for path in paths["one"].values()))
    return paths


@pytest.mark.parametrize("engine", ENGINES)
def test_runs_are_resumed_and_their_best_checkpoints_kept(recipes, engine):
    """By another number of processes, if the engine's checkpoints allow it; DeepSpeed's don't."""
    own, environment = recipes[engine], launched_with(engine)
    run(3 if engine == "fsdp2" else 2, environment, train_recipes, (own["lora"], ["max_steps=2"], False))
    run(2, environment, train_recipes, (own["lora"], (), True), (own["best"], (), False))
    for name, file in (("lora", "adapter_model"), ("best", "model")):
        found, expected = (recipes[which][name].with_suffix("") for which in (engine, "one"))
        weights, wanted = (load_file(folder / f"{file}.safetensors") for folder in (found, expected))
        assert weights.keys() == wanted.keys()
        for key, value in wanted.items():
            # Adam's first steps are as long for a gradient of almost nothing, whose sign is rounding, as for others: a
            # few weights may differ by two steps (of .05 in the best run).
            apart = (weights[key] - value).abs() > (1e-3 if name == "best" else 1e-5)
            assert apart.float().mean() < 0.005, (key, apart.sum(), weights[key] - value)
    # With this learning rate the second step is the best, for one process too.
    kept, second = (load_file(found / part / "model.safetensors") for part in (".", "checkpoint-2"))
    assert all(second[key].equal(value) for key, value in kept.items())
    record = json.loads((own["lora"].with_suffix("") / "run.json").read_text())
    assert record["processes"] == {"number": 2, "sharding": {"fsdp2": "FSDP2"}.get(engine, f"ZeRO-{engine[-1]}")}
    assert record["usage"]["flops"] > 0
    done = warm.bfpo("train", own["lora"], "--resume", "--set", "max_steps=5")
    assert done.returncode == 2
    assert "was started with sharding" in done.stderr


def test_checkpoints_of_deepspeed_are_for_as_many_processes(tmp_path):
    record = {"config": {}, "data": [], "model": {}, "mix": {}, "finished": False}
    record["processes"] = {"number": 2, "sharding": "ZeRO-3"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert earlier_run(tmp_path, {}, record["processes"], resume=True)
    with pytest.raises(BfpoError, match=r"started with 2 processes, and only as many .* not 3"):
        earlier_run(tmp_path, {}, {"number": 3, "sharding": "ZeRO-3"}, resume=True)


def test_an_adapter_is_not_merged_into_divided_weights(recipes):
    path = recipes["fsdp2"]["lora"]
    done = warm.run(
        warm.command, "train", str(path), "--set", "merge_adapter=true", "--set", f"output_dir={path.parent}/merged",
        environment=launched_with("fsdp2"),
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "merge_adapter can't merge into weights that FSDP2 divides" in done.stderr
