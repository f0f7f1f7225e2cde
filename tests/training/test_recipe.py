"""Recipes are closed: errors name mistyped, missing or contradictory keys, and every value has an origin."""

import dataclasses
import re

import pytest

from bfpo import BFPOConfig
from bfpo.errors import BfpoError
from bfpo.objectives.bfpo import BFPO
from bfpo.objectives.registry import option_types
from bfpo.training.recipe import Recipe, load_recipe
from bfpo.training.run import training_arguments

MINIMAL = """
stage: preference
model: some/model
data:
  - {path: pairs.jsonl}
output_dir: runs/mine
"""


def written(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_origins_of_values(tmp_path):
    resolved = load_recipe(written(tmp_path, MINIMAL + "learning_rate: 5e-6\n"), ["beta=0.2"])
    assert (resolved.recipe.learning_rate, resolved.origins["learning_rate"]) == (5e-6, "recipe")
    assert (resolved.recipe.beta, resolved.origins["beta"]) == (0.2, "command line")
    assert (resolved.recipe.batch_size, resolved.origins["batch_size"]) == (64, "default")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "betta: 0.1\n", "unknown key 'betta' (did you mean 'beta'?)"),
        (MINIMAL.replace("path:", "pth:"), "unknown key 'data.0.pth' (did you mean 'path'?)"),
        (MINIMAL + "lora: {rank: 8}\n", "unknown key 'lora.rank'"),
        (MINIMAL.replace("model: some/model", ""), "the key 'model' is missing"),
        (MINIMAL.replace("preference", "prefrence"), "stage: input should be 'sft' or 'preference', not 'prefrence'"),
        (MINIMAL + "batch_size: many\n", "batch_size:"),
        (MINIMAL + "seed: 4294967296\n", "seed: input should be less than or equal to 4294967295"),
        (MINIMAL + "learning_rate: -1.0\n", "learning_rate: input should be greater than 0"),
        (MINIMAL + "precision: fp16\n", "precision: input should be 'fp32' or 'bf16', not 'fp16'"),
        (MINIMAL + "loss_type: sft\n", "doesn't go with"),
        (MINIMAL + "lora: {}\ntrainable: down_proj\n", "give only one"),
        (MINIMAL + "lora: {continued: true, r: 8}\n", "write lora: continue alone"),
        (MINIMAL + "eval_steps: 5\n", "need 'eval_data'"),
        (MINIMAL.replace("jsonl}", "jsonl, role: buffer}"), "at least one must have 'role: main'"),
        (MINIMAL.replace("output_dir", "  - {path: pairs.jsonl}\noutput_dir"), "the same name"),
        ("- a\n- b\n", "a recipe is a mapping"),
        ("stage: [\n", "not valid YAML"),
        (MINIMAL + "lora:\n", "line 7: not valid YAML: the key 'lora' has no value; write one"),
        (MINIMAL + "beta: 0.1\nseed: 1\nbeta: 0.2\n", "line 9: not valid YAML: the key 'beta' is there twice"),
        (MINIMAL + "max_steps: 0\n", "max_steps: 0 would train nothing; write -1 for whole epochs"),
        # YAML's yes is true, which counts as 1.
        (MINIMAL + "beta: yes\n", "beta: input should be a valid number, not True"),
        (MINIMAL + "seed: on\n", "seed: input should be a valid integer, not True"),
        (MINIMAL + "lora: {r: yes}\n", "lora.r: input should be a valid integer, not True"),
        (MINIMAL + "harm_prices: {theft: yes}\n", "harm_prices.theft: input should be a valid number, not True"),
        (MINIMAL + "expected: {loss: [0, yes]}\n", "expected.loss.1: input should be a valid number, not True"),
        (MINIMAL.replace("jsonl}", "jsonl, unknown_safety: yes}"), "input should be a valid number, not True"),
        (MINIMAL + 'beta: "0.1"\n', "beta: input should be a valid number, not '0.1'"),
        (MINIMAL + "max_grad_norm: .inf\n", "max_grad_norm: input should be a finite number, not inf"),
        (MINIMAL + "lr_scheduler_type: cosin\n", "lr_scheduler_type: input should be 'linear', 'cosine'"),
        (MINIMAL + "optim: adam\n", "optim: input should be 'adamw_torch'"),
        (MINIMAL + "lora: contine\n", "lora"),
        (MINIMAL + "merge_adapter: true\n", "'merge_adapter' needs 'lora'"),
        (MINIMAL + "early_stopping_patience: 2\n", "'early_stopping_patience' needs 'keep_best: true'"),
        (MINIMAL + "eval_fraction: 0.1\neval_data: {path: e.jsonl}\n", "give only one"),
    ],
)
def test_mistakes_are_named_in_one_sentence(tmp_path, text, message):
    with pytest.raises(BfpoError) as error:
        load_recipe(written(tmp_path, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_all_mistakes_at_once(tmp_path):
    with pytest.raises(BfpoError) as error:
        load_recipe(written(tmp_path, MINIMAL + "betta: 1\nlearnin_rate: 1\n"))
    assert "betta" in str(error.value)
    assert "learnin_rate" in str(error.value)


def test_all_contradictions_at_once(tmp_path):
    wrong = "merge_adapter: true\nkeep_best: true\nlabeling: f.json\nb1: 2.0\nharm_prices: {default: 1.0}\n"
    sources = MINIMAL.replace("output_dir", "  - {path: pairs.jsonl, weight: 2}\noutput_dir")
    with pytest.raises(BfpoError) as error:
        load_recipe(written(tmp_path, sources + wrong))
    assert str(error.value).partition(".yaml: ")[2].split("; ") == [
        "two sources have the same name: give each its own 'name'",
        "some main sources have a 'weight' and some have none: give one to each of them",
        "'labeling' sets b1 and alpha: leave them out, or leave out 'labeling'",
        "b1 is the price of categories without their own, and so is 'default' in 'harm_prices': give only one",
        "'eval_steps' and 'keep_best' need 'eval_data' or 'eval_fraction'",
        "'keep_best' needs 'eval_steps' and a 'save_steps' equal to it",
        "'merge_adapter' needs 'lora'",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("beta", "key=value"),
        ("betta=1", "did you mean 'beta'"),
        ("lora.rr=1", "unknown key 'lora.rr'"),
        ("data.1.limit=5", "no 'data.1.limit' to set"),
        ("model.r=5", "no 'model.r' to set"),
        ("seed=[", "--set seed=[, line 1: not valid YAML"),
    ],
)
def test_wrong_overrides(tmp_path, override, message):
    with pytest.raises(BfpoError, match=re.escape(message)):
        load_recipe(written(tmp_path, MINIMAL), [override])


def test_overrides_reach_into_the_recipe(tmp_path):
    resolved = load_recipe(written(tmp_path, MINIMAL), ["lora.r=8", "data.0.limit=100", "reference_cache=null"])
    assert resolved.recipe.lora.r == 8
    assert resolved.recipe.data[0].limit == 100
    assert resolved.recipe.reference_cache is None
    assert [resolved.origins[key] for key in ("lora", "data", "beta")] == ["command line", "command line", "default"]


def test_home_folders_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    recipe = load_recipe(written(tmp_path, MINIMAL), ["output_dir=~/runs/x", "data.0.path=~/pairs.jsonl"]).recipe
    assert (recipe.output_dir, recipe.data[0].path) == ("/home/someone/runs/x", "/home/someone/pairs.jsonl")


def test_recipe_and_config_take_the_options_of_all_objectives_from_them(tmp_path):
    resolved = load_recipe(written(tmp_path, MINIMAL), ["b1=2", "unsafe_pairs=drop", "beta=null"])
    assert resolved.objective_options == {"b1": 2.0, "unsafe_pairs": "drop"}
    arguments = training_arguments(resolved)
    assert arguments.objective() == BFPO(b1=2.0, unsafe_pairs="drop")
    fields = {field.name: field.default for field in dataclasses.fields(BFPOConfig)}
    for name in option_types():
        assert fields[name] is None
        assert Recipe.model_fields[name].default is None
    with pytest.raises(BfpoError, match="unsafe_pairs: input should be 'keep', 'neutral' or 'drop', not 'dropp'"):
        load_recipe(written(tmp_path, MINIMAL), ["unsafe_pairs=dropp"])


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(BfpoError, match="no such recipe"):
        load_recipe(tmp_path / "nothing.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(BfpoError, match="can't be read"):
        load_recipe(binary)
    with pytest.raises(BfpoError, match="can't be read"):
        load_recipe(tmp_path)
