"""Each packaged recipe passes ``--plan`` on a tiny random model of its architecture and fixtures in its schema."""

import json
from importlib.resources import files

import pytest
import yaml
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.training.recipe import load_recipe
from bfpo.training.run_plan import plan_recipe
from training.rows import WORDS, word_tokenizer

RECIPES = {path.name: path for path in files("bfpo.recipes").iterdir() if path.name.endswith(".yaml")}
ARCHITECTURES = {
    "mistralai/Mistral-7B-v0.1": "mistral",
    "HuggingFaceH4/zephyr-7b-beta": "mistral",
    "runs/paper-sft": "mistral",
    "runs/sacpo-helpfulness": "qwen2",
    "Qwen/Qwen2.5-0.5B-Instruct": "qwen2",
}
SCHEMAS = {
    "HuggingFaceH4/ultrachat_200k": lambda q, a, b: {
        "prompt": q,
        "prompt_id": "0",
        "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}],
    },
    "PKU-Alignment/PKU-SafeRLHF": lambda q, a, b: {
        "prompt": q, "response_0": a, "response_1": b, "is_response_0_safe": True, "is_response_1_safe": False,
        "better_response_id": 1, "safer_response_id": 0,
    },
    "HuggingFaceH4/ultrafeedback_binarized": lambda q, a, b: {
        "prompt": q, "prompt_id": "0", "score_chosen": 8.0, "score_rejected": 5.0,
        "chosen": [{"role": "user", "content": q}, {"role": "assistant", "content": a}],
        "rejected": [{"role": "user", "content": q}, {"role": "assistant", "content": b}],
        "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}],
    },
    "runs/attacks/groups.jsonl": lambda q, a, b: {
        "prompt": [{"role": "user", "content": q}], "responses": [a, b], "helpfulness": [0.5, 0.5],
        "is_safe": [1.0, 0.0], "category": "privacy", "labelled_by": {"answers": ["judge", "judge"]},
        "judged_as": {"answers": [{"verdict": 1.0}, {"verdict": 0.0}], "judges": ["guard"]},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tiny models and a fixture file for every source that the recipes name."""
    folder = tmp_path_factory.mktemp("recipes")
    tokenizer = word_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' + eos_token }}{% endfor %}"
    )
    for architecture in set(ARCHITECTURES.values()):
        config = AutoConfig.for_model(
            architecture, vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1,
        )  # fmt: skip
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / architecture)
        tokenizer.save_pretrained(folder / architecture)
    for name, make in SCHEMAS.items():
        rows = [make(f"{word} w1", f"{word} w2 w3", "w4 w5") for word in WORDS]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name.split('/')[1]}.jsonl").write_text(text)
    return folder


def local_overrides(path, folder):
    """The recipe's models and sources, by files of the same schema."""
    recipe = yaml.safe_load(path.read_text())
    model = folder / ARCHITECTURES[recipe["model"]]
    sources = [source | {"path": str(folder / f"{source['path'].split('/')[1]}.jsonl")} for source in recipe["data"]]
    overrides = [f"model={model}", f"data={json.dumps(sources)}", f"output_dir={folder / 'out'}"]
    return overrides + ([f"tokenizer={model}"] if "tokenizer" in recipe else [])


@pytest.mark.parametrize("name", RECIPES)
def test_plan(name, folder):
    path = RECIPES[name]
    resolved = load_recipe(path, local_overrides(path, folder))
    plan = plan_recipe(resolved)
    recipe = resolved.recipe
    kept = [round((s.fraction or 1) * len(WORDS)) for s in recipe.data if s.role == "main"]
    assert plan.main_groups == sum(kept)
    assert plan.steps == -(-sum(kept) // plan.main_groups_per_step)
    if recipe.trainable == "down_proj":
        assert plan.size.trainable == 2 * 16 * 32
    if recipe.lora:
        assert 0 < plan.size.trainable < plan.size.parameters
    assert plan.estimate.memory_bytes > 4 * plan.size.trainable
    assert plan.seconds > 0
    assert not (folder / "out").exists()


def test_plan_command_prints_a_table_or_json_and_trains_nothing(folder):
    path = RECIPES["paper-bfpo.yaml"]
    arguments = ["train", str(path), "--plan"]
    for override in local_overrides(path, folder):
        arguments += ["--set", override]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    for words in ("bfpo", "memory (estimate)", "12 main, 60 buffer", "64 groups (32 main, 32 buffer)"):
        assert words in shown.output
    made = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert made["objective"]["beta"] == 0.01
    assert not (folder / "out").exists()
