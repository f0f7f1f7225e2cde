"""The model card is read back by Hugging Face's own parser, with every figure."""

import json
import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from bfpo.reports.card import model_card
from bfpo.safehelp.figures import CORRECTED
from bfpo.statistics.intervals import Estimate
from reports.worlds import evaluation, partly_rated


@pytest.fixture
def trained(tmp_path):
    values = {
        "model": "HuggingFaceH4/mistral-7b-sft-beta", "stage": "preference", "loss_type": "bfpo", "beta": 0.01,
        "data": [{"path": "PKU-Alignment/PKU-SafeRLHF"}, {"path": "data/pairs.jsonl"}, {"path": "./local/pairs"}],
    }  # fmt: skip
    record = {
        "config": {key: {"value": value, "origin": "recipe"} for key, value in values.items()},
        "data": [{"name": "safety", "role": "main", "read": 1920}],
        "log": [],
    }
    (tmp_path / "run.json").write_text(json.dumps(record))
    return evaluation("BFPO", per_task=40, model_path=str(tmp_path))


def test_card_is_parsed_back_with_every_figure(trained, tmp_path):
    model_card(trained).save(tmp_path / "README.md")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "HuggingFaceH4/mistral-7b-sft-beta"
    assert card.data.datasets == ["PKU-Alignment/PKU-SafeRLHF"]
    assert {"bfpo", "safehelp"} == set(card.data.tags)
    assert card.data.library_name == "transformers"
    found = {(r.dataset_name, r.metric_type): r for r in card.data.eval_results}
    for name in ("helpful", "harmless", "over_refusal", "incoherent", "likelihood/harmless"):
        estimate, result = trained.scores[name], found["SafeHelp (fixture)", name]
        assert result.metric_value == pytest.approx(estimate.value, abs=1e-4)
        assert f"[{estimate.low:.4f}, {estimate.high:.4f}], n = {estimate.n}" in result.metric_name
    for task in trained.tasks:
        assert found[task.task, task.metric].metric_value == pytest.approx(task.estimate.value, abs=1e-4)


def test_card_says_how_many_prompts_a_mean_of_rated_answers_is_about():
    card = model_card(partly_rated(evaluation("BFPO", per_task=20), 12))
    (row,) = [line for line in card.text.splitlines() if "| severity-weighted harm |" in line]
    assert "| 12 of 20 rated |" in row
    names = {result.metric_type: result.metric_name for result in card.data.eval_results}
    assert names["severity_weighted_harm"].endswith(", n = 12 of 20 rated")
    assert names["attack_success"].endswith(", n = 20")


def test_card_has_the_corrected_attack_success(trained):
    scored = replace(trained, scores={**trained.scores, CORRECTED: Estimate(0.2, 0.1, 0.3, 40)})
    assert "| attack success, corrected | .20 [.10, .30] | 40 |" in model_card(scored).text


@pytest.mark.parametrize(("merged", "library"), [(False, "peft"), (True, "transformers")])
def test_card_of_an_adapter_names_the_library_that_loads_it(trained, tmp_path, merged, library):
    record = json.loads((tmp_path / "run.json").read_text())
    record["config"] |= {"lora": {"value": {"r": 16}}, "merge_adapter": {"value": merged}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert model_card(trained).data.library_name == library


def test_card_says_data_settings_use_and_limits(trained):
    text = model_card(trained).text
    headings = ("Intended use", "Results", "How it was measured", "Training data and settings", "Limits")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(headings)
    for words in ("| beta | 0.01 |", "safety (main): 1,920 rows", "bfpo evaluate BFPO", "| winogrande | acc |"):
        assert words in text


def test_card_of_a_model_whose_training_is_unknown():
    card = model_card(evaluation("BFPO", per_task=40))
    assert card.data.base_model is None
    assert "no record of its training" in card.text


def test_names_stay_text():
    name = "a|b\n---\nlicense: mit\n# [x](javascript:1) <script>"
    run = evaluation(name, per_task=10)
    card = ModelCard(str(model_card(run)))
    assert card.data.to_dict().get("license") is None
    # The command is in a code block, where markup has no effect.
    text = re.sub(r"\n```\n.*?\n```\n", "", card.text, flags=re.DOTALL)
    assert "\n# [x]" not in card.text
    assert "\\<script\\>" in text
    assert "<script>" not in text.replace("\\<script\\>", "")
    first = card.data.eval_results[0]
    assert (card.data.model_name, first.metric_value) == (name, round(run.scores[first.metric_type].value, 4))
