"""The two runners on tiny models, and the command on the embedded one."""

import json
import subprocess
import sys

import pytest
import torch

from bfpo.errors import BfpoError
from bfpo.microworld.model import load_microworld_model, load_microworld_tokenizer
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.likelihood import run_choices
from bfpo.safehelp.suites import ChoiceItem, build_suite
from models import tiny_llama
from training.rows import word_tokenizer


def test_likelihoods_equal_a_plain_forward():
    model, tokenizer = tiny_llama(dtype=torch.float64).eval(), word_tokenizer()
    items = [ChoiceItem(f"i{n}", "helpful", f"w{n} w1 ", f"w{n + 3} w9", "w4 w5 w6") for n in range(6)]
    for record, item in zip(run_choices(model, tokenizer, items, max_tokens=40), items, strict=True):
        for text, found in ((item.preferred, record.preferred_logp), (item.other, record.other_logp)):
            prompt = tokenizer(item.prompt)["input_ids"]
            ids = torch.tensor([[*prompt, *tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
            logps = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
            assert found == pytest.approx(logps[len(prompt) - 1 :].sum().item(), rel=1e-9)
        assert record.preferred_bytes == len(item.preferred)


def test_suite_items_are_fixed_distinct_and_never_from_training():
    suite = build_suite("microworld", "test", 500)
    again = build_suite("microworld", "test", 500)
    assert (suite.prompts, suite.choices) == (again.prompts, again.choices)
    assert len({item.prompt for item in suite.prompts}) == 1500
    validation = build_suite("microworld", "validation", 500)
    assert not {item.prompt for item in suite.prompts} & {item.prompt for item in validation.prompts}
    for item in suite.choices:
        preferred, other = (suite.judge(item.prompt, text) for text in (item.preferred, item.other))
        if item.factor == "harmless":
            assert preferred.is_safe
            assert not other.is_safe
        else:
            assert preferred.p_help > other.p_help


def test_the_embedded_model_starts_helpful_and_harmful():
    result = evaluate(load_microworld_model(), load_microworld_tokenizer(), name="base", per_kind=60)
    assert result.scores["helpful"].value > 0.7
    assert result.scores["harmless"].value < 0.45
    assert result.scores["incoherent"].value < 0.05
    assert result.scores["likelihood/helpful"].value > 0.9


def test_unknown_suites_are_named():
    with pytest.raises(BfpoError, match="did you mean 'microworld'"):
        build_suite("micro-world")


def test_command_writes_records_and_refuses_unknown_models(tmp_path):
    command = [sys.executable, "-m", "bfpo", "evaluate"]
    options = {"capture_output": True, "text": True, "cwd": tmp_path, "timeout": 300, "check": False}
    done = subprocess.run([*command, "microworld", "--per-kind", "10", "-o", "out", "--json"], **options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["helpful"]["n"] == 20
    assert len((tmp_path / "out" / "generations.jsonl").read_text().splitlines()) == 30
    for arguments, message in [(["no/such/model"], "can't be loaded"), (["microworld", "--suite", "x"], "no suite")]:
        done = subprocess.run([*command, *arguments], **options)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
