"""Recipes that start from an adapter: merged, continued or trained whole, planned, and loaded by plain libraries."""

import json

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerCallback

from bfpo.errors import BfpoError
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train
from bfpo.training.run_plan import plan_recipe
from bfpo.training.starting_model import load_starting_model
from models import tiny_llama
from training.rows import pairs, word_tokenizer

IDS = torch.tensor([[1, 5, 6, 7, 9]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, an adapter on it that changes its logits, and pairs."""
    folder = tmp_path_factory.mktemp("stages")
    model = tiny_llama()
    model.save_pretrained(folder / "model")
    base = AutoModelForCausalLM.from_pretrained(folder / "model")
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(folder / "sft")
    for name in ("model", "sft"):
        word_tokenizer().save_pretrained(folder / name)
    pairs(12).to_json(folder / "pairs.jsonl")
    return folder


def recipe(folder, name, **changes):
    values = {
        "stage": "preference", "model": str(folder / "sft"), "data": [{"path": str(folder / "pairs.jsonl")}],
        "output_dir": str(folder / name), "beta": 0.3, "learning_rate": 0.01, "batch_size": 4, "max_steps": 3,
        "warmup_steps": 0, "logging_steps": 1, "reference_cache": None,
    } | changes  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_recipe(path)


def logits(model):
    with torch.inference_mode():
        return model.eval()(IDS).logits


def first_metrics(folder, name):
    log = json.loads((folder / name / "run.json").read_text())["log"]
    return next(entry for entry in log if "loss" in entry)


def test_a_new_adapter_belongs_to_the_merged_weights_of_the_first_stage(folder):
    lines = []
    run = train(recipe(folder, "second", lora={"r": 2}, learning_rate=1e-3), say=lines.append)
    assert any("was merged into" in line and "base" in line for line in lines)
    record = json.loads((run.folder / "run.json").read_text())
    assert record["model"]["name"] == str(folder / "sft")
    assert record["model"]["adapter_of"] == str(folder / "model")
    sft = logits(AutoPeftModelForCausalLM.from_pretrained(folder / "sft"))
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(run.folder / "base")), sft)
    # Both stages are in what plain PEFT loads: it differs from the first stage, and more from the base model.
    second = logits(AutoPeftModelForCausalLM.from_pretrained(run.folder))
    start = logits(AutoModelForCausalLM.from_pretrained(folder / "model"))
    assert 1e-4 < (second - sft).abs().max() < (second - start).abs().max()


@pytest.mark.parametrize("lora", [{"r": 2}, "continue", None])
def test_the_reference_is_the_first_stage(folder, lora):
    """Before the first update, policy and reference are equal, and their log-probabilities those of the first stage."""
    name = f"reference-{'new' if isinstance(lora, dict) else lora}"
    train(recipe(folder, name, lora=lora, max_steps=1))
    plain = f"plain-{name}"
    train(recipe(folder, plain, model=str(folder / "model"), max_steps=1))
    found = first_metrics(folder, name)
    assert found["rewards/margins"] == pytest.approx(0.0, abs=1e-5)
    assert abs(found["logps/chosen"] - first_metrics(folder, plain)["logps/chosen"]) > 0.01


def test_continue_trains_the_adapter_itself(folder):
    run = train(recipe(folder, "continued", lora="continue"))
    config = json.loads((run.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder / "model")
    before, after = (load_file(place / "adapter_model.safetensors") for place in (folder / "sft", run.folder))
    assert before.keys() == after.keys()
    assert all((before[name] - after[name]).abs().max() > 0 for name in before)


def test_without_lora_the_merged_weights_train_whole(folder):
    run = train(recipe(folder, "whole"))
    assert not (run.folder / "base").exists()
    assert not (run.folder / "adapter_config.json").exists()
    sft = logits(AutoPeftModelForCausalLM.from_pretrained(folder / "sft"))
    assert 1e-4 < (logits(AutoModelForCausalLM.from_pretrained(run.folder)) - sft).abs().max() < 10


def test_merge_adapter_saves_what_the_adapter_computes(folder):
    adapter = train(recipe(folder, "kept", lora={"r": 2})).folder
    merged = train(recipe(folder, "merged", lora={"r": 2}, merge_adapter=True)).folder
    assert not (merged / "adapter_config.json").exists()
    expected = logits(AutoPeftModelForCausalLM.from_pretrained(adapter))
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(merged)), expected)


@pytest.mark.parametrize(
    "lora", [{"r": 2, "target_modules": ["lm_head"]}, {"r": 2, "target_modules": ["embed_tokens", "q_proj"]},
             {"r": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}],
)  # fmt: skip
def test_an_adapter_of_tied_embeddings_is_never_merged(folder, lora):
    """Merged into the head, it would change the embeddings too."""
    name = f"tied-{lora['target_modules'][0]}-{len(lora)}"
    with pytest.raises(BfpoError, match="one matrix in this model, so merging it would give another model: leave"):
        train(recipe(folder, name, lora=lora, merge_adapter=True))
    trained = train(recipe(folder, f"{name}-apart", lora=lora)).folder
    with pytest.raises(BfpoError, match="merging it would give another model: train it on with 'lora: continue'"):
        train(recipe(folder, f"{name}-second", model=str(trained), lora={"r": 2}))


def test_modules_to_save_are_trained_and_saved_whole(folder):
    run = train(recipe(folder, "head", model=str(folder / "model"), lora={"r": 2, "modules_to_save": ["norm"]}))
    weights = load_file(run.folder / "adapter_model.safetensors")
    norm = next(value for name, value in weights.items() if name.endswith("model.norm.weight"))
    assert not norm.equal(AutoModelForCausalLM.from_pretrained(folder / "model").model.norm.weight)


@pytest.mark.parametrize(("lora", "trainable"), [({"r": 2}, 2), ("continue", 2), (None, None)])
def test_the_plan_agrees(folder, lora, trainable):
    plan = plan_recipe(recipe(folder, "planned", lora=lora))
    assert plan.steps == 3
    whole = AutoModelForCausalLM.from_pretrained(folder / "model").num_parameters()
    assert (plan.size.trainable == whole) == (trainable is None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "model", "lora": "continue"}, "needs an adapter"),
        ({"lora": {"target_modules": ["q_prj"]}}, "the adapter doesn't fit the model: .*q_prj"),
        ({"lora": {"target_modules": ["q_proj", "vproj"]}}, "it has no module 'vproj' .did you mean 'v_proj'"),
        ({"lora": {"modules_to_save": ["head"]}}, "the adapter doesn't fit the model: it has no module 'head'"),
        ({"lora": {"target_modules": "*proj"}}, "the adapter doesn't fit the model: nothing to repeat"),
    ],
)
def test_what_cannot_start_is_said_in_one_sentence(folder, changes, message):
    if "model" in changes:
        changes = changes | {"model": str(folder / changes["model"])}
    with pytest.raises(BfpoError, match=message) as error:
        train(recipe(folder, f"wrong-{len(message)}", **changes))
    assert "\n" not in str(error.value)


def test_merged_weights_of_a_run_that_took_no_step_are_not_taken_for_those_of_the_next(folder):
    """The folder of a failed start may hold the base of another first stage."""

    class Fail(TrainerCallback):
        def on_step_begin(self, *_, **__):
            raise KeyboardInterrupt

    other_base = folder / "other-model"
    tiny_llama(seed=5).save_pretrained(other_base)
    word_tokenizer().save_pretrained(other_base)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(other_base),
        LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    adapted.save_pretrained(folder / "other-sft")
    word_tokenizer().save_pretrained(folder / "other-sft")
    with pytest.raises(KeyboardInterrupt):
        train(recipe(folder, "again", model=str(folder / "other-sft"), lora={"r": 2}), callbacks=[Fail()])
    run = train(recipe(folder, "again", lora={"r": 2}))
    sft = logits(AutoPeftModelForCausalLM.from_pretrained(folder / "sft"))
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(run.folder / "base")), sft)


def test_a_folder_of_the_users_own_is_never_taken_or_removed(folder):
    """Merged weights are saved in 'base', which a user may have, too."""
    own = folder / "mine" / "base" / "notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("keep me", encoding="utf-8")
    with pytest.raises(BfpoError, match="the folder is taken; choose another output_dir"):
        train(recipe(folder, "mine", lora={"r": 2}))
    assert own.read_text(encoding="utf-8") == "keep me"


def test_the_adapter_names_its_base_by_an_absolute_path(folder, monkeypatch):
    monkeypatch.chdir(folder)
    run = train(recipe(folder, "merged-relative", lora={"r": 2}, output_dir="merged-relative"))
    config = json.loads((run.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder / "merged-relative" / "base")


def test_a_run_from_before_its_base_was_marked_can_be_resumed(folder):
    run = train(recipe(folder, "before", lora={"r": 2}, save_steps=1))
    (run.folder / "base" / "merged_from.json").unlink()
    longer = recipe(folder, "before", lora={"r": 2}, save_steps=1, max_steps=4)
    assert json.loads((train(longer, resume=True).folder / "run.json").read_text())["steps"] == 4


def test_only_the_main_process_writes_the_base_and_the_others_wait_for_it(folder, monkeypatch):
    """The others looked while the main process was removing what an earlier run had left."""
    base = folder / "waiting" / "base"

    class Other:
        is_main_process = False

        def wait_for_everyone(self):
            assert not base.exists()
            base.mkdir(parents=True)
            (base / "merged_from.json").touch()

    monkeypatch.setattr("bfpo.training.starting_model.PartialState", Other)
    start = load_starting_model(recipe(folder, "waiting", lora={"r": 2}).recipe)
    assert start.model.name_or_path == str(base)
    assert [path.name for path in base.iterdir()] == ["merged_from.json"]


def test_the_card_says_how_the_model_was_made_and_loads(folder):
    run = train(recipe(folder, "carded", lora={"r": 2}))
    card = ModelCard.load(run.folder / "README.md")
    assert (card.data.base_model, card.data.library_name, card.data.tags) == (str(folder / "sft"), "peft", ["bfpo"])
    for words in ("| loss_type | bfpo |", "| beta | 0.3 |", "12 rows; ", "AutoPeftModelForCausalLM", "SU "):
        assert words in card.text
    code = card.text.split("```python")[1].split("```")[0]
    scope = {}
    exec(code, scope)
    assert scope["model"].get_base_model().config.vocab_size == len(scope["tokenizer"])


def test_a_pickled_adapter_is_refused(folder, tmp_path):
    torch.save({}, tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_config.json").write_text((folder / "sft" / "adapter_config.json").read_text())
    with pytest.raises(BfpoError, match=r"has no adapter_model.safetensors"):
        train(recipe(folder, "pickled", model=str(tmp_path)))


def test_an_adapter_finds_its_base_from_any_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    run = train(recipe(folder, "relative", model="model", lora={"r": 2}))
    config = json.loads((run.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder / "model")
    assert "r 2, lora\\_alpha 32" in (run.folder / "README.md").read_text()
    assert "| trainable | the adapter |" in (run.folder / "README.md").read_text()
