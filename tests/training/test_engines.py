"""Engines and settings that aren't right are refused before any work, by the variables of accelerate's launcher."""

import os

import pytest
import torch
from accelerate import Accelerator
from accelerate.parallelism_config import ParallelismConfig
from torch.distributed.fsdp import fully_shard

from bfpo import BFPOConfig, BFPOTrainer
from bfpo.errors import BfpoError
from bfpo.training import engines
from models import tiny_llama
from support import warm
from training.rows import pairs, word_tokenizer
from training.tiny_runs import write_material, write_recipe

FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true"}
LAUNCHED = {
    "FSDP_VERSION is 1": {"ACCELERATE_USE_FSDP": "true"},
    "FSDP_STATE_DICT_TYPE is SHARDED_STATE_DICT": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
    "FSDP_OFFLOAD_PARAMS is true": FSDP2 | {"FSDP_OFFLOAD_PARAMS": "true"},
    "FSDP_CPU_RAM_EFFICIENT_LOADING is true": FSDP2 | {"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"},
    "FSDP_ACTIVATION_CHECKPOINTING is true": FSDP2 | {"FSDP_ACTIVATION_CHECKPOINTING": "true"},
    "ZERO_STAGE is 1": ZERO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"},
    "CONFIG_FILE is mine.json": ZERO | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "mine.json"},
    "OFFLOAD_OPTIMIZER_DEVICE is cpu": ZERO | {"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"},
    "GRADIENT_ACCUMULATION_STEPS is 4": ZERO | {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
    "GRADIENT_CLIPPING is 1.0": ZERO | {"ACCELERATE_GRADIENT_CLIPPING": "1.0"},
    "ACCELERATE_USE_CPU is true": ZERO | {"ACCELERATE_USE_CPU": "true"},
    "ZERO3_INIT is true": ZERO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
    "SAVE_16BIT_MODEL is false": ZERO
    | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false"},
    "Megatron-LM": {"ACCELERATE_USE_MEGATRON_LM": "true"},
    "tensor, context or sequence": {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_TP_SIZE": "2"},
    "mixed precision bf16, and the run isn't": {"ACCELERATE_MIXED_PRECISION": "bf16"},
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    write_material(folder)
    return write_recipe(folder, "run", precision="fp32")


@pytest.mark.parametrize("engine", LAUNCHED)
@pytest.mark.parametrize("options", [[], ["--plan"]])
def test_a_process_started_for_another_engine_is_refused_before_any_work(recipe, engine, options):
    done = warm.run(warm.command, "train", str(recipe), *options, environment=LAUNCHED[engine])
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert engine in done.stderr
    assert done.stderr.count("\n") == 1
    assert not recipe.with_suffix("").exists()


def test_deepspeed_is_an_extra(monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(BfpoError, match=r"pip install 'bfpo\[deepspeed\]'"):
        BFPOConfig(output_dir=str(tmp_path), use_cpu=True)


def test_the_same_process_trains_without_them(recipe):
    done = warm.run(warm.command, "train", str(recipe), environment=dict.fromkeys(map(variable, LAUNCHED), "no"))
    assert done.returncode == 0, done.stderr
    assert (recipe.with_suffix("") / "model.safetensors").exists()


def variable(engine):
    return next(iter(LAUNCHED[engine]))


@pytest.mark.parametrize(
    ("argument", "value"),
    [("fsdp", True), ("deepspeed", {"zero_optimization": {"stage": 2}}), ("parallelism_config", ParallelismConfig())],
)
def test_an_argument_for_another_engine_is_refused(tmp_path, argument, value):
    before = dict(os.environ)
    with pytest.raises(BfpoError, match=f"{argument} asks for .*: leave it out"):
        BFPOConfig(output_dir=str(tmp_path), use_cpu=True, **{argument: value})
    assert os.environ == before


def autocast_dtype():
    """What the launcher's precision does if the arguments don't contradict it."""
    with Accelerator(cpu=True).autocast():
        print(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)


def test_the_launchers_precision_would_be_used_silently():
    """Why it is refused: the reference would be cached as that of another precision."""
    found = [
        warm.run(autocast_dtype, environment={"ACCELERATE_MIXED_PRECISION": name}).stdout for name in ("no", "bf16")
    ]
    assert found == ["None\n", "torch.bfloat16\n"]


def train_sharded(folder):
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    torch.distributed.init_process_group("gloo")
    model = tiny_llama()
    fully_shard(model)
    arguments = BFPOConfig(output_dir=folder, use_cpu=True, report_to="none", max_steps=1)
    try:
        BFPOTrainer(model, arguments, pairs(4), processing_class=word_tokenizer())
    except BfpoError as error:
        print(error)


def test_a_model_that_is_sharded_already_is_refused(tmp_path):
    done = warm.run(train_sharded, str(tmp_path))
    assert "the model's weights are divided among processes" in done.stdout, done.stderr


def test_a_model_on_several_devices_is_refused(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "model")
    places = {"model.embed_tokens": "cpu", "model.layers": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu"}
    model = type(tiny_llama()).from_pretrained(
        tmp_path / "model", device_map=places | {"lm_head": "disk"}, offload_folder=tmp_path / "offloaded"
    )
    arguments = BFPOConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(BfpoError, match="layers are on several devices"):
        BFPOTrainer(model, arguments, pairs(4), processing_class=word_tokenizer())
