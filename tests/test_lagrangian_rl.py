"""The Lagrangian RL baseline of benchmarks/cost.py: its multiplier, the data of its models, and a short run."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bfpo.files import write_rows
from bfpo.microworld.data import helpfulness_set, safety_set
from bfpo.models import MICROWORLD, load_tokenizer

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def rl(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "lagrangian_rl", raising=False)
    import lagrangian_rl

    return lagrangian_rl


def test_lambda_rises_above_the_limit_and_falls_below_it_but_not_under_zero(rl):
    multiplier = rl.Multiplier(rl.Setting(first=1.0, rate=2.0, limit=0.1))
    for costs, expected in (([0.5, 0.7], 2.0), ([0.0], 1.8), ([0.1, 0.1], 1.8)):
        multiplier.costs += costs
        multiplier.on_step_end(None, SimpleNamespace(), None)
        assert multiplier.value == pytest.approx(expected)
    for _ in range(20):
        multiplier.costs.append(0.0)
        multiplier.on_step_end(None, SimpleNamespace(), None)
    assert multiplier.value == 0
    assert multiplier.path[:3] == pytest.approx([2.0, 1.8, 1.8])


def test_the_models_learn_from_the_labels_that_bfpo_reads(rl):
    safety, helpful = safety_set(20, 0), helpfulness_set(10, 0)
    pairs = rl.helpful_pairs(safety, helpful)
    assert len(pairs) == 30
    for row, pair in zip(safety, pairs, strict=False):
        assert pair["chosen"][-1]["content"] == row[f"response_{row['better_response_id']}"]
        assert pair["chosen"][0] == pair["rejected"][0] == {"role": "user", "content": row["prompt"]}
    for row, pair in zip(helpful, list(pairs)[20:], strict=True):
        scores = dict(zip(row["responses"], row["helpfulness"], strict=True))
        assert scores[pair["chosen"][-1]["content"]] == max(scores.values())
        assert scores[pair["rejected"][-1]["content"]] == min(scores.values())
    flags = rl.flagged(safety)
    assert len(flags) == 40
    assert sum(unsafe for _, _, unsafe in flags) == sum(
        not row[f"is_response_{at}_safe"] for row in safety for at in (0, 1)
    )


def test_tokens_are_counted_as_the_models_read_them(rl):
    tokenizer = load_tokenizer(MICROWORLD)
    chats = [rl.chat("a question", "an answer"), rl.chat("another question", "no")]
    expected = sum(len(tokenizer.apply_chat_template(one)["input_ids"]) for one in chats)
    assert rl.count_tokens(tokenizer, chats) == expected


@pytest.mark.long
def test_a_short_run_leaves_a_policy_and_what_it_took(rl, tmp_path):
    write_rows(tmp_path / "safety.jsonl", safety_set(32, 0))
    write_rows(tmp_path / "helpful.jsonl", helpfulness_set(16, 0))
    setting = rl.Setting(epochs=1, steps=1, prompts=2, samples=4)
    record = rl.run(MICROWORLD, tmp_path, tmp_path / "policy", 0, setting)
    assert record["sampled_answers"] == 8
    assert len(record["lambda"]) == 1
    assert {"reward model", "cost model", "policy"} <= set(record["cpu_seconds"])
    assert (tmp_path / "policy" / "model.safetensors").exists()
    json.dumps(record)
