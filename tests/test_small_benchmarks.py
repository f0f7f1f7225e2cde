"""Benchmarks that nobody runs every day, as far as they run in a moment: they must still fit the package."""

import json
import os
import subprocess
import sys
from functools import wraps
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from bfpo.models import MICROWORLD, load_tokenizer
from bfpo.preferences.loading import load_preferences
from bfpo.training.recipe import load_recipe
from support.choice_parity import load_stories, sample_items

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmark():
    """A benchmark's module by its name, which may also be that of a folder of tests."""

    def load(name):
        spec = spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_all_ways_to_sample_take_as_many_passes_as_tokens(benchmark, monkeypatch):
    ways = benchmark("generation").contestants("microworld", answers=2, tokens=3)
    assert list(ways) == ["ours", "transformers", "bare"]
    passes, forward = [], LlamaForCausalLM.forward

    @wraps(forward)
    def counted(*given, **named):
        passes.append(1)
        return forward(*given, **named)

    monkeypatch.setattr(LlamaForCausalLM, "forward", counted)
    for run in ways.values():
        run()
        assert len(passes) == 3
        passes.clear()


@pytest.mark.parametrize("rows", ["short", "long"])
def test_the_plans_recipes_and_rows_can_be_read(benchmark, tmp_path, rows):
    plan = benchmark("plan")
    for trained in plan.TRAINED:
        recipe = load_recipe(plan.write_recipe(tmp_path, Path("model"), rows, trained, "bf16", 3)).recipe
        assert (recipe.max_steps, recipe.precision, recipe.reference_cache) == (3, "bf16", None)
        assert bool(recipe.lora) == (trained == "LoRA")
        assert (recipe.trainable == "all") == (trained != "down_proj")
    loaded = load_preferences(recipe.data[0].path)
    assert len(loaded) == plan.ROWS[rows][2] > recipe.batch_size - 1
    assert None not in loaded["chosen_is_safe"]


def test_the_plans_page_counts_what_is_within_the_bar(benchmark):
    plan = benchmark("plan")
    case = {"model": "m", "trained": "all", "precision": "fp32", "rows": "short"}
    taken = {"seconds": 10.0, "memory_bytes": 1e9}
    results = [case | {"told": {"seconds": seconds, "memory_bytes": memory}, "taken": taken}
               for seconds, memory in ((12.9, 1.19e9), (13.1, 0.81e9), (9.0, 1.21e9))]  # fmt: skip
    page = plan.page(results)
    assert "within 20% in 2 of 3 cases" in page
    assert "within 30% in 2 of 3 cases" in page
    assert "| m | all | fp32 | short | 1.19 | 1.00 | 1.19 | 13 | 10 | 1.29 |" in page


def test_likelihoods_are_compared_and_timed_on_items_of_every_form(benchmark, shared_data):
    pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")
    likelihood = benchmark("likelihood")
    model, tokenizer = load_stories(shared_data)
    items = sample_items(shared_data, each=3)
    assert max(likelihood.differences(model, tokenizer, items, chat=False)) < 1e-4
    rates = likelihood.speeds(model, tokenizer, items, repeats=1, sizes=(2,))
    speed = [["bbq", len(items), *({str(size): rate for size, rate in one.items()} for one in rates)]]
    found = {"parity": [["bbq", 9, False, [1e-6, 2e-6]]], "speed": speed, "real": speed, "start_up": {"x": 1.0}}
    text = likelihood.page(found)
    assert "**On 9 items they differ by at most 2.0e-06 nats" in text
    assert text.count("| bbq | 9 | 3 answers |") == 2


def test_likelihoods_find_the_tests_helpers_from_the_folder_of_benchmarks(shared_data):
    pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")
    code = (
        "import sys, likelihood; from pathlib import Path; from support import choice_parity as helper;"
        "items = helper.sample_items; helper.sample_items = lambda data: items(data, each=1);"
        "likelihood.DATA = Path(sys.argv[1]); assert len(likelihood.measured('parity', 0, None)) == 6"
    )
    # The folder of a script is the first that Python looks into.
    folder = {"PYTHONPATH": str(BENCHMARKS)}
    subprocess.run([sys.executable, "-c", code, str(shared_data)], check=True, env=os.environ | folder)


def test_real_pairs_are_trained_on_token_by_token(tmp_path):
    """Every side gets a word for every token that the real model's tokenizer makes."""
    rows = [
        {"prompt": f"what is the sea number {at}?", "chosen": "the sea is water", "rejected": "no"} for at in range(4)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script = """
import json, sys
from bfpo.models import MICROWORLD
from workload import Workload, make_texts, make_tokenizer
workload = Workload(prompts=3, model="smollm2-135m", folder=str(MICROWORLD), data=sys.argv[1])
words = make_tokenizer(workload)
texts = make_texts(workload)
print(json.dumps([[words(text)["input_ids"] for text in (prompt, *answers)] for prompt, answers in texts]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "pairs.jsonl")],
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS), "HF_DATASETS_CACHE": str(tmp_path / "cache")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    tokenizer = load_tokenizer(MICROWORLD)
    found = json.loads(done.stdout)

    def asked(row):
        messages = [{"role": "user", "content": row["prompt"]}]
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]

    def numbers(ids):
        # The first two are the word tokenizer's own.
        return [max(2, number) for number in ids]

    expected = [
        [numbers(asked(row)), *(numbers(tokenizer(row[name])["input_ids"]) for name in ("chosen", "rejected"))]
        for row in rows
    ]
    assert len(found) == 3
    assert all(one in expected for one in found)
