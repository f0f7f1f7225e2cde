"""Training stops at the first loss, gradient or weight that is not finite, and saves none of it."""

import json
import math

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from bfpo import BFPOConfig, BFPOTrainer
from bfpo.cli.main import app
from bfpo.errors import RunError
from bfpo.training.run_record import write_record
from models import tiny_llama
from training.rows import pairs, word_tokenizer


def trainer(tmp_path, **changes):
    arguments = {
        "output_dir": str(tmp_path), "beta": 0.3, "learning_rate": 1e-3, "global_batch_size": 4, "max_steps": 3,
        "save_strategy": "no", "logging_steps": 1, "use_cpu": True, "disable_tqdm": True, "reference_cache": None,
    }  # fmt: skip
    config = BFPOConfig(**(arguments | changes))
    return BFPOTrainer(tiny_llama(), config, pairs(12), processing_class=word_tokenizer())


def test_a_learning_rate_that_breaks_the_model_ends_the_command_with_the_step_and_its_rows(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    pairs(24).to_json(tmp_path / "pairs.jsonl")
    values = {
        "stage": "preference", "model": str(tmp_path / "model"), "data": [{"path": str(tmp_path / "pairs.jsonl")}],
        "output_dir": str(tmp_path / "run"), "learning_rate": 1e30, "batch_size": 4, "max_steps": 6, "save_steps": 1,
        "warmup_steps": 0,
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(app, ["train", str(tmp_path / "recipe.yaml")])
    assert isinstance(result.exception, RunError)
    message = str(result.exception)
    assert message.startswith("step 2: the gradient's norm is nan (rows ")
    assert "the newest checkpoint is" in message
    assert not (tmp_path / "run" / "model.safetensors").exists()
    record = json.loads((tmp_path / "run" / "run.json").read_text(), parse_constant=pytest.fail)
    assert not record["finished"]


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path, monkeypatch, max_grad_norm):
    run = trainer(tmp_path, max_grad_norm=max_grad_norm)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    step = run.training_step

    def spoiled(model, *arguments):
        loss = step(model, *arguments)
        next(model.parameters()).grad[0, 0] = torch.inf
        return loss

    monkeypatch.setattr(run, "training_step", spoiled)
    with pytest.raises(RunError, match=r"step 1: the gradient's norm is (inf|nan)"):
        run.train()
    assert all(value.equal(before[name]) for name, value in run.model.state_dict().items())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_log_ratio_that_is_not_finite_is_no_estimate_of_the_kl_divergence(tmp_path, monkeypatch, value):
    """max(0, nan) is 0 in Python, and KTO's loss is finite at an infinite estimate."""
    monkeypatch.setattr("bfpo.training.evaluating.mean_log_ratio", lambda *arguments: value)
    run = trainer(tmp_path, loss_type="kto")
    with pytest.raises(RunError, match=rf"step 1: the mean log-ratio .* is {value} \(rows "):
        run.train()


def test_a_row_without_a_finite_loss_is_named(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    loss = run.engine.loss

    def spoiled(model, groups, inputs):
        value, logps = loss(model, groups, inputs)
        return value * torch.nan, logps

    monkeypatch.setattr(type(run.engine), "loss", lambda engine, *arguments: spoiled(*arguments))
    with pytest.raises(RunError, match=r"step 1: the loss is nan \(rows (\d+, ){3}\d+\).*there is no checkpoint"):
        run.train()


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    run = trainer(tmp_path)
    run.save_model(str(tmp_path / "saved"))
    assert load_file(tmp_path / "saved" / "model.safetensors")
    with torch.no_grad():
        run.model.model.norm.weight[3] = torch.nan
    with pytest.raises(RunError, match=r"model.norm.weight is not finite"):
        run.save_model(str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_record_is_json_whatever_its_numbers(tmp_path):
    write_record(tmp_path, {"log": [{"loss": float("nan")}, {"loss": float("inf")}, {"loss": 1.0}]})
    text = (tmp_path / "run.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["log"] == [{"loss": None}, {"loss": None}, {"loss": 1.0}]
