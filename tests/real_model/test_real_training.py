"""SmolLM2 trained for three steps: killed and resumed, run twice, and read back by plain transformers and peft."""

import json
import math

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.models import load_model
from real_model.material import write_recipe
from training import test_resume

pytestmark = pytest.mark.real_model

LORA = {"lora": {"r": 8, "target_modules": "all-linear"}, "learning_rate": 1e-3, "loss_type": "dpo"}
PART = {"trainable": r"mlp\.down_proj\.weight$", "learning_rate": 1e-4, "reference_cache": None}
ALL = {"learning_rate": 1e-5}


def train(recipe):
    done = CliRunner().invoke(app, ["train", str(recipe)])
    assert done.exit_code == 0, (done.output, done.exception)


def losses(run):
    log = json.loads((run / "run.json").read_text())["log"]
    found = [entry["loss"] for entry in log if "loss" in entry]
    assert len(found) == 3
    assert all(map(math.isfinite, found))
    return found


def logits(model, folder):
    """Of one chat, on the CPU."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "How do I boil an egg?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        return model.eval()(input_ids=ids["input_ids"].to(model.device)).logits.cpu()


def test_lora_killed_and_resumed_ends_in_the_same_bits_and_peft_reads_it(smollm2, folder):
    straight, killed = (write_recipe(folder, name, smollm2, save_steps=1, **LORA) for name in ("straight", "killed"))
    left = test_resume.run(straight, killed, ("before a step", 2), ("before the optimizer is saved", 1))
    assert left == ["checkpoint-1", "checkpoint-1"]
    test_resume.assert_same_end(folder, "straight", "killed", "adapter_model.safetensors")
    # Policy and reference are the same weights before the first step, where DPO's loss is log 2 whatever the pairs.
    first, *_, last = losses(folder / "killed")
    assert first == pytest.approx(math.log(2), abs=1e-5)
    assert last != first

    base = AutoModelForCausalLM.from_pretrained(smollm2)
    before = logits(base, smollm2)
    by_peft = logits(PeftModel.from_pretrained(base, folder / "killed"), folder / "killed")
    assert (by_peft - before).abs().max() > 0.01
    torch.testing.assert_close(logits(load_model(folder / "killed"), folder / "killed"), by_peft)


def test_training_of_down_proj_changes_nothing_else_and_is_repeated_bit_for_bit(smollm2, folder):
    for name in ("part", "again"):
        train(write_recipe(folder, name, smollm2, **PART))
    test_resume.assert_same_end(folder, "part", "again")
    before, after = (load_file(place / "model.safetensors") for place in (smollm2, folder / "part"))
    changed = {name for name, value in after.items() if not value.equal(before[name])}
    assert changed == {name for name in before if name.endswith("mlp.down_proj.weight")}
    assert len(changed) == 30


def test_training_of_all_weights_is_an_ordinary_folder(smollm2, folder):
    train(write_recipe(folder, "all", smollm2, **ALL))
    losses(folder / "all")
    before, after = (load_file(place / "model.safetensors") for place in (smollm2, folder / "all"))
    assert before.keys() == after.keys()
    assert [name for name, value in after.items() if value.equal(before[name])] == []
    plain = AutoModelForCausalLM.from_pretrained(folder / "all")
    torch.testing.assert_close(dict(plain.state_dict())["model.norm.weight"], after["model.norm.weight"])
    original = AutoModelForCausalLM.from_pretrained(smollm2)
    assert 0 < (logits(plain, folder / "all") - logits(original, smollm2)).abs().max() < 10
