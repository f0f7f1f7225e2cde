"""Runs from a recipe: ordinary folders, complete records, the best checkpoint, an adapter where one was trained."""

import json
import math

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.training.recipe import load_recipe
from bfpo.training.run import build_trainer, train
from bfpo.training.run_plan import plan_recipe
from bfpo.training.starting_model import recipe_tokenizer
from models import tiny_llama
from training.rows import pairs, word_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tiny_llama().save_pretrained(folder / "model")
    word_tokenizer().save_pretrained(folder / "model")
    pairs(24).to_json(folder / "safety.jsonl")
    pairs(10, seed=1, safety=False).to_json(folder / "helpful.jsonl")
    return folder


def recipe(folder, name, **changes):
    values = {
        "stage": "preference",
        "model": str(folder / "model"),
        "data": [
            {"name": "safety", "path": str(folder / "safety.jsonl"), "fraction": 0.5},
            {"name": "helpful", "path": str(folder / "helpful.jsonl"), "role": "buffer", "unknown_safety": 1.0},
        ],
        "output_dir": str(folder / name),
        "beta": 0.3,
        "learning_rate": 0.003,
        "batch_size": 4,
        "max_steps": 3,
        "logging_steps": 1,
    } | changes
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_record_says_what_the_run_was_made_of(folder):
    lines = []
    run = train(load_recipe(recipe(folder, "plain"), ["seed=3"]), say=lines.append)
    record = json.loads((run.folder / "run.json").read_text())
    assert record["finished"]
    assert record["steps"] == 3
    assert record["config"]["seed"] == {"value": 3, "origin": "command line"}
    assert record["config"]["beta"] == {"value": 0.3, "origin": "recipe"}
    assert record["config"]["max_length"]["origin"] == "default"
    assert record["objective"] == {
        "name": "bfpo", "beta": 0.3, "b1": 3.0, "alpha": 0.5, "reduction": "sum", "unsafe_pairs": "keep", "level": 0.0,
    }  # fmt: skip
    safety, helpful = record["data"]
    assert len(safety["subset_rows"]) == 12
    assert len(safety["digest"]) == 64
    assert helpful["filled_unknown"] == 10
    assert record["mix"]["main_groups_per_step"] * 2 == record["mix"]["groups_per_step"] == 4
    assert {"torch", "transformers", "bfpo"} <= set(record["versions"])
    assert any("rows filled as unknown 10" in line for line in lines)
    assert "every step: 4 groups (2 main, 2 buffer); 6 steps per epoch" in lines
    assert any(line.startswith("layout: shared") for line in lines)


def test_a_plan_reads_the_tokenizer_at_the_revision_that_training_uses(folder, monkeypatch):
    loaded = []
    tokenizer = word_tokenizer()
    monkeypatch.setattr(
        "bfpo.training.starting_model.load_tokenizer", lambda *name, **at: loaded.append((name, at)) or tokenizer
    )
    resolved = load_recipe(recipe(folder, "planned", model_revision="v1"))
    plan_recipe(resolved)
    build_trainer(resolved, {}, [])
    assert loaded == [((str(folder / "model"),), {"revision": "v1"})] * 2
    recipe_tokenizer(load_recipe(recipe(folder, "planned", model_revision="v1", tokenizer="other")).recipe)
    assert loaded[2] == (("other",), {})


def test_result_is_an_ordinary_folder_without_pickles(folder):
    run = train(load_recipe(recipe(folder, "ordinary", save_steps=2)))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(run.folder), AutoTokenizer.from_pretrained(run.folder)
    assert len(tokenizer) == model.config.vocab_size
    assert not [path for path in run.folder.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    before = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert not model.lm_head.weight.equal(before.lm_head.weight)


def test_lora_leaves_an_adapter_that_loads_over_its_base(folder):
    run = train(load_recipe(recipe(folder, "lora", lora={"r": 2, "target_modules": "all-linear"})))
    with safe_open(run.folder / "adapter_model.safetensors", "pt") as weights:
        assert all("lora" in name for name in weights.keys())  # noqa: SIM118
    assert not (run.folder / "model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(folder / "model")
    ids = torch.tensor([[1, 5, 6, 7]])
    plain = base(ids).logits
    assert not PeftModel.from_pretrained(base, run.folder)(ids).logits.allclose(plain, atol=1e-6)


@pytest.mark.parametrize("trained", [{"trainable": "down_proj"}, {"lora": {"r": 4}}, {}])
def test_a_run_in_bf16_shares_prompts(folder, trained):
    """Weights in bfloat16 and float32 side by side once failed the comparison, which ran without autocast."""
    run = train(load_recipe(recipe(folder, f"bf16-{next(iter(trained), 'all')}", precision="bf16", **trained)))
    layout = json.loads((run.folder / "run.json").read_text())["layout"]
    assert (layout["layout"], layout["micro_batch_tokens"]) == ("shared", 1536)


def test_bf16_run_saves_bf16(folder):
    run = train(load_recipe(recipe(folder, "bf16", precision="bf16", trainable="down_proj")))
    with safe_open(run.folder / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_the_best_checkpoint_is_kept_on_request(folder):
    evaluation = {"path": str(folder / "safety.jsonl"), "name": "held-out", "limit": 6}
    changes = {"eval_data": evaluation, "eval_steps": 1, "save_steps": 1, "keep_best": True, "learning_rate": 0.5}
    run = train(load_recipe(recipe(folder, "best", **changes)))
    log = json.loads((run.folder / "run.json").read_text())["log"]
    losses = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    best = min(losses, key=losses.get)
    assert best < max(losses), "the last step is the best one, which would be kept without being asked for"
    kept = AutoModelForCausalLM.from_pretrained(run.folder)
    checkpoint = AutoModelForCausalLM.from_pretrained(run.folder / f"checkpoint-{best}")
    assert kept.lm_head.weight.equal(checkpoint.lm_head.weight)
    assert len(losses) == 3


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_evaluation_data_are_evaluated_at_the_end_and_steps_are_those_of_the_trainer(folder):
    run = train(load_recipe(recipe(folder, "at-end", eval_fraction=0.3, max_steps=-1, num_train_epochs=0.3)))
    record = json.loads((run.folder / "run.json").read_text())
    evaluated = [entry["step"] for entry in record["log"] if "eval_loss" in entry]
    assert evaluated == [record["steps"]]
    plan = plan_recipe(load_recipe(folder / "at-end.yaml"))
    # Three tenths of an epoch are one step and a part of another.
    assert plan.steps == record["steps"] == math.ceil(0.3 * record["mix"]["steps_per_epoch"])
    assert record["steps"] != round(0.3 * record["mix"]["steps_per_epoch"])


def test_sft_stage_trains_on_the_safer_answers(folder):
    """The weights are those of a run on the safer answers alone, written out by hand, and of no other answers."""
    rows = list(pairs(24))
    safer = [row["rejected" if row["rejected_is_safe"] > row["chosen_is_safe"] else "chosen"] for row in rows]
    less_safe = [row["chosen" if row["rejected_is_safe"] > row["chosen_is_safe"] else "rejected"] for row in rows]
    assert safer != [row["chosen"] for row in rows]
    data = [{"path": str(folder / "safety.jsonl"), "prefer": "safer"}]
    run = train(load_recipe(recipe(folder, "sft", stage="sft", data=data, beta=None)))
    record = json.loads((run.folder / "run.json").read_text())
    assert record["objective"] == {"name": "sft"}
    trained = weights(run.folder)
    for name, answers, same in (("sft-safer", safer, True), ("sft-less-safe", less_safe, False)):
        lines = [
            json.dumps({"prompt": row["prompt"], "completion": answer})
            for row, answer in zip(rows, answers, strict=True)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
        data = [{"path": str(folder / f"{name}.jsonl")}]
        other = train(load_recipe(recipe(folder, name, stage="sft", data=data, beta=None)))
        assert all(value.equal(trained[key]) for key, value in weights(other.folder).items()) == same


def test_ordering_by_safety_is_recorded(folder):
    data = [{"name": "safety", "path": str(folder / "safety.jsonl"), "prefer": "safer"}]
    run = train(load_recipe(recipe(folder, "ordered", data=data, loss_type="dpo")))
    ordering = json.loads((run.folder / "run.json").read_text())["data"][0]["ordering"]
    assert sum(ordering.values()) == 24
    assert ordering["skipped_equal"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "no/such/model/here"}, "there is no model at 'no/such/model/here'"),
        ({"loss_type": "bfpoo"}, "did you mean 'bfpo'"),
        ({"loss_type": "dpo", "alpha": 0.3}, "does not read the option 'alpha'"),
        ({"batch_size": 5}, "can't hold"),
        ({"trainable": "no_such"}, "matches no parameter"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(folder, change, message):
    path = recipe(folder, "wrong", **change)
    with pytest.raises(BfpoError, match=message):
        train(load_recipe(path))
    assert not (folder / "wrong" / "run.json").exists()


def test_command_trains_and_tells(folder):
    done = CliRunner().invoke(app, ["train", str(recipe(folder, "command"))])
    assert done.exit_code == 0, done.output
    assert "safety (main): 12 of 24 rows" in done.output
    assert "run.json are in" in done.output
