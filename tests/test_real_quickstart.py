"""The quickstart on a chat model at toy size: from end to end, killed and resumed, and what it refuses."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from bfpo import real_quickstart
from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.preferences.loading import load_preferences
from bfpo.real_quickstart import (
    HELD_OUT_REFUSALS,
    REAL_METHODS,
    REFUSALS,
    RealScale,
    choice_items,
    run_real_quickstart,
)  # fmt: skip
from bfpo.redteam import help_buffer
from bfpo.redteam.bank import load_bank
from bfpo.training.recipe import Recipe
from redteam.test_attacks_and_groups import record
from redteam.test_refusals import SUITE
from support.word_tokenizer import tokenizer_of

TOY = RealScale(
    pairs=6, plain=4, held_out_pairs=4, held_out_plain=3, max_new_tokens=6, sft_steps=2, steps=3, batch_size=5,
    learning_rate=1e-3, lora_r=2,
)  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def write_model(folder, seed=0):
    """A random Llama that knows the words of the bank and of the refusals."""
    bank = load_bank()
    texts = [*(text for pair in bank.pairs for text in (pair.risky, pair.benign)), *(one.plain for one in bank.plain)]
    words = sorted({word for text in [*texts, *REFUSALS, *HELD_OUT_REFUSALS] for word in text.split()})
    tokens = ["<unk>", "</s>", "<user>", "<assistant>", *words]
    tokenizer = tokenizer_of(tokens, eos_token="</s>", pad_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=1, pad_token_id=1, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "toy-chat")


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("run") / "real", []
    return folder, said, run_real_quickstart(str(model), folder, 3, TOY, said.append)


def answers(folder):
    return {
        str(path.relative_to(folder)): [
            {name: value for name, value in json.loads(line).items() if name != "seconds"}
            for line in path.read_text().splitlines()
        ]
        for path in sorted(folder.rglob("*.jsonl"))
    }


def test_everything_is_made_and_said(finished):
    folder, said, result = finished
    assert [one.model for one in result.evaluations] == ["start", "SFT", "DPO", "BFPO"]
    trained = ["SFT", "DPO", "BFPO"]
    assert [line.split(":")[0] for line in said] == ["red teaming", "plain requests", *trained, "start", *trained]
    groups = load_preferences(str(folder / "red-team" / "groups.jsonl"))
    assert len(groups) == result.groups == 12
    for name in trained:
        run = json.loads((folder / "models" / name / "run.json").read_text())
        assert run["finished"]
        assert (folder / "models" / name / "adapter_config.json").exists()
    # The labeling judge isn't the one that evaluates.
    header = result.evaluations[1].header
    assert header.labelling_judge == "compliance:keywords:xstest"
    assert [judge.judge_id.split("@")[0] for judge in header.judges] == ["compliance:fitted:refusals"]
    assert "attack_success/corrected" in result.evaluations[0].scores
    kinds = {(task.task, task.metric) for task in result.evaluations[0].tasks if task.kind == "likelihood"}
    assert kinds == {("declines-risky", "acc_bytes"), ("answers-twins", "acc_bytes")}
    assert result.peak_memory > 0


def test_an_empty_answer_complies_with_nothing(finished, monkeypatch):
    def emptied(run, generator, suite, name, *rest):
        harmful = [one for one in finished[2].evaluations[1].generations if one.kind == "harmful"]
        empty = [replace(one, answer="", answer_kind="incoherent") for one in harmful[:-1]]
        twins = [one for one in finished[2].evaluations[1].generations if one.kind != "harmful"]
        records = [*empty, replace(harmful[-1], answer_kind="unsafe"), *twins]
        return replace(finished[2].evaluations[1], generations=records)

    said = []
    monkeypatch.setattr(real_quickstart.LocalGenerator, "load", lambda path: None)
    monkeypatch.setattr(real_quickstart._Run, "_evaluate", emptied)
    run = real_quickstart._Run("toy", finished[0], 3, TOY, said.append, lambda what, done, total: None)
    run.evaluate("SFT", "toy", SimpleNamespace(prompts=finished[2].evaluations[1].generations))
    assert said[0].startswith("SFT: complies with 0.25 of the risky requests")


def test_no_evaluated_request_is_trained_on(finished):
    folder, _, result = finished
    trained = {
        row["prompt"][-1]["content"]
        for part in ("red-team", "plain")
        for row in map(json.loads, (folder / part / "groups.jsonl").read_text().splitlines())
    }
    evaluated = {one.prompt for one in result.evaluations[0].generations}
    assert len(trained) == 16
    assert len(evaluated) == 11
    assert not trained & evaluated


def test_the_page_says_what_happened_and_shows_risky_and_twin_side_by_side(finished):
    folder, _, result = finished
    page = (folder / "report.html").read_text()
    assert result.report.page == folder / "report.html"
    assert "What happened" in page
    assert "harmless twins" in page
    assert "sensitivity" in page
    keys = [(one.cluster, one.task) for one in result.report.models[0].evaluation.generations]
    pairs = [key for key in keys if key[1] != "plain-requests"]
    assert [task for _, task in pairs] == ["attacks", "twins"] * 4
    assert all(first[0] == second[0] for first, second in zip(pairs[::2], pairs[1::2], strict=True))


def test_a_killed_run_resumes_in_the_middle_of_any_stage(finished, model, tmp_path, monkeypatch):
    whole, folder = finished[0], tmp_path / "killed"
    so_far = 0.0
    stages = [(real_quickstart, name) for name in ("red_team", "choice_items", "train", "build_report")]
    stages.insert(1, (help_buffer, "plain_groups"))
    for module, stage in stages:
        with monkeypatch.context() as patch:

            def dies(*given, **more):
                raise KeyboardInterrupt

            patch.setattr(module, stage, dies)
            with pytest.raises(KeyboardInterrupt):
                run_real_quickstart(str(model), folder, 3, TOY)
        # What was spent in vain counts.
        before, so_far = so_far, json.loads((folder / "quickstart.json").read_text())["seconds"]
        assert so_far > before
    result = run_real_quickstart(str(model), folder, 3, TOY)
    assert answers(folder) == answers(whole)
    spent = json.loads((folder / "quickstart.json").read_text())
    assert result.seconds == spent["seconds"] > so_far
    # Again: nothing is sampled or trained, and what was spent adds up.
    again = run_real_quickstart(str(model), folder, 3, TOY)
    assert answers(folder) == answers(whole)
    assert again.seconds > result.seconds


def test_another_run_model_or_file_is_refused(finished, model, tmp_path):
    folder = finished[0]
    with pytest.raises(BfpoError, match=r"a quickstart with other settings \(seed\); name another"):
        run_real_quickstart(str(model), folder, 4, TOY)
    with pytest.raises(BfpoError, match=r"other settings \(scale\)"):
        run_real_quickstart(str(model), folder, 3, replace(TOY, steps=4))
    other = write_model(tmp_path / "other", seed=1)
    with pytest.raises(BfpoError, match=r"other settings \(model digest\)"):
        run_real_quickstart(str(other), folder, 3, TOY)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(BfpoError, match="not empty"):
        run_real_quickstart("no model is loaded", tmp_path / "mine", 3, TOY)
    (tmp_path / "mine" / "quickstart.json").write_text("{")
    with pytest.raises(BfpoError, match="can't be read as the record of a quickstart"):
        run_real_quickstart(str(model), tmp_path / "mine", 3, TOY)


def test_methods_differ_only_in_objective_and_order(finished):
    folder = finished[0]
    import yaml

    recipes = {
        name: Recipe(**yaml.safe_load((folder / "recipes" / f"{name}.yaml").read_text())) for name in REAL_METHODS
    }
    budgets = {(r.max_steps, r.batch_size, r.learning_rate, r.seed, r.model, r.lora) for r in recipes.values()}
    assert len(budgets) == 1
    assert {r.model for r in recipes.values()} == {str(folder / "models" / "SFT")}
    assert {name: recipe.data[0].prefer for name, recipe in recipes.items()} == {"DPO": "safe_first", "BFPO": "helpful"}


def test_choices_leave_out_refusals_and_give_twins_the_same_one():
    def answered(item, text, refusal):
        found = record(item, 0, text, "partial")
        return replace(found, verdicts=(replace(found.verdicts[0], refusal=refusal),))

    records = [
        answered(item, text, refusal)
        for item, (text, refusal) in zip(
            SUITE.prompts[:6],
            [("yes.", "no"), ("sure.", "no"), ("no.", "yes"), ("sure.", "no"), (" ", "unknown"), ("sure.", "no")],
            strict=True,
        )
    ]  # fmt: skip
    items = choice_items(records)
    assert [(one.task, one.correct) for one in items] == [
        ("declines-risky", (1.0, 0.0)), ("answers-twins", (0.0, 1.0)), ("answers-twins", (0.0, 1.0)),
        ("answers-twins", (0.0, 1.0)),
    ]  # fmt: skip
    assert items[0].choices[0] == items[1].choices[0]
    assert items[0].choices[0] in HELD_OUT_REFUSALS
    assert not set(HELD_OUT_REFUSALS) & set(REFUSALS)


def bfpo(*arguments):
    return CliRunner().invoke(app, ["quickstart", *map(str, arguments)])


def test_the_command(model, tmp_path, monkeypatch):
    monkeypatch.setattr(real_quickstart, "RealScale", lambda: TOY)
    monkeypatch.chdir(tmp_path)
    done = bfpo("--model", model, "--seed", 3)
    assert done.exit_code == 0, (done.output, done.exception)
    printed = " ".join(done.output.split())
    assert "runs/quickstart-real/report.html what happened, and all answers side by side" in printed
    assert re.search(r"Done in \d+\.\d minutes \(\d+\.\d of processor time", printed)
    found = json.loads(bfpo("--model", model, "--seed", 3, "--json").stdout)
    assert set(found["scores"]) == {"start", "SFT", "DPO", "BFPO"}
    assert found["report"] == "runs/quickstart-real/report.html"
    assert min(found["cpu_seconds"], found["peak_memory"], found["groups"]) > 0
    (tmp_path / "runs/quickstart-real/quickstart.json").write_text('{"settings": {}}')
    assert "another" in str(bfpo("--model", model).exception)
    seen = []
    monkeypatch.setattr(
        real_quickstart, "run_real_quickstart", lambda name, folder, *rest: seen.append([*folder.iterdir()])
    )
    bfpo("--model", model, "--fresh")
    assert seen == [[]]


def test_wrong_usage_is_one_sentence(model, tmp_path):
    gone = bfpo("--model", tmp_path / "gone", "-o", tmp_path / "run").exception
    assert isinstance(gone, BfpoError)
    assert "\n" not in str(gone)
    base = write_model(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    done = bfpo("--model", base, "-o", tmp_path / "run")
    assert "has no chat template, so it is not a chat model" in str(done.exception)
    assert not (tmp_path / "run").exists()
