"""Tests of ``bfpo evaluate``: adapters, servers, and the options that change requests, as the run records them."""

import json
import shlex
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from bfpo.cli.evaluate import _print_detectable
from bfpo.cli.main import app
from bfpo.errors import BfpoError, RunError
from bfpo.files import sole_user
from bfpo.microworld.data import safety_set
from bfpo.models import MICROWORLD, load_model, load_tokenizer
from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.suites import load_suite
from support.mock_server import FILTERS, MAX_TOKENS, completion, limited, refusal, serving

SMALL = ["--suite", "microworld", "--per-kind", "3", "--max-new-tokens", "12"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def evaluated(folder, *arguments):
    done = run("evaluate", *arguments, "-o", folder)
    assert done.exit_code == 0, (done.output, done.exception)
    return Evaluation.load(folder)


def answers(evaluation):
    return {record.item: record.answer for record in evaluation.generations}


def logps(evaluation):
    return [value for record in evaluation.likelihoods for value in record.logps]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return evaluated(tmp_path_factory.mktemp("base"), "microworld", *SMALL)


def test_the_recorded_command_can_be_pasted_into_a_shell(tmp_path, monkeypatch):
    arguments = ["evaluate", "microworld", *SMALL, "--name", "it's $HOME; a b", "-o", str(tmp_path / "a run")]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/bfpo", *arguments])
    assert run(*arguments).exit_code == 0
    assert shlex.split(Evaluation.load(tmp_path / "a run").header.command) == ["bfpo", *arguments]


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"lm_eval": "ifeval"}, "own: 1 task run by lm-eval.\n"),
        (
            {"source": {"file": "rows.jsonl"}, "prompt": "{{ a }}", "choices": "['no', 'yes']", "correct": "0"},
            "own: 2 items by likelihood.\nA comparison with another model",
        ),
    ],
)
def test_a_run_begins_with_what_it_measures_and_nothing_else(task, says, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"a": "x"}\n{"a": "y"}\n', encoding="utf-8")
    entry = {"task": "t", "factor": "helpful", "license": "MIT", "metrics": ["acc"]} | task
    (tmp_path / "own.yaml").write_text(
        yaml.safe_dump({"suite": "own", "about": "x", "tasks": [entry]}), encoding="utf-8"
    )
    _print_detectable(load_suite(str(tmp_path / "own.yaml")), 1, False)
    assert capsys.readouterr().out.startswith(says)


def test_a_folder_in_which_another_process_is_at_work_is_refused(tmp_path):
    with sole_user(tmp_path / "run"):
        done = run("evaluate", "microworld", *SMALL, "-o", tmp_path / "run")
    assert isinstance(done.exception, BfpoError)
    assert "another process is using this folder" in str(done.exception)
    assert not (tmp_path / "run").exists()


def test_corrected_rates_are_shown_and_can_be_required(tmp_path):
    arguments = ["evaluate", "microworld", *SMALL, "-o", tmp_path / "run", "--judge-errors"]
    done = run(*arguments, "90/100,80/100", "--require", "attack_success/corrected<=.99")
    assert "attack success, corrected for the judge's error: " in done.output
    assert done.exit_code in (0, 1)  # as the interval of three prompts decides
    assert "no figure" not in str(done.exception)
    done = run(*arguments, "1/10,9/10")
    assert isinstance(done.exception, BfpoError)
    assert "no better than chance and no rate can be corrected" in str(done.exception)


@pytest.mark.parametrize(("option", "says"), [("--top-p", "top-p 0.0: write a probability above 0")])
def test_decodings_that_can_not_be_are_refused_before_anything_is_written(tmp_path, option, says):
    done = run("evaluate", "microworld", *SMALL, option, "0", "-o", tmp_path / "run")
    assert isinstance(done.exception, BfpoError)
    assert says in str(done.exception)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A LoRA adapter of the bundled model, after two steps."""
    folder = tmp_path_factory.mktemp("adapter")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in safety_set(16, 0)))
    recipe = {
        "stage": "preference", "model": str(MICROWORLD), "data": [{"path": str(folder / "pairs.jsonl")}],
        "output_dir": str(folder / "trained"), "lora": {"r": 4, "lora_alpha": 8}, "learning_rate": 0.03,
        "warmup_steps": 0, "lr_scheduler_type": "constant", "batch_size": 8, "max_steps": 2, "max_length": 64,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = run("train", folder / "recipe.yaml")
    assert done.exit_code == 0, (done.output, done.exception)
    return folder / "trained"


def test_an_adapters_folder_is_evaluated_as_the_weights_that_it_makes(base, adapter, tmp_path):
    """The adapter's product is added to the base's weights by hand, W + (alpha / r) B A."""
    lora = load_file(adapter / "adapter_model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(MICROWORLD)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name in (name for name in lora if ".lora_A." in name):
            product = lora[name.replace(".lora_A.", ".lora_B.")] @ lora[name]
            weights[name.removeprefix("base_model.model.").replace(".lora_A.", ".")] += 8 / 4 * product
    model.save_pretrained(tmp_path / "merged")
    load_tokenizer("microworld").save_pretrained(tmp_path / "merged")

    found = evaluated(tmp_path / "found", adapter, *SMALL)
    expected = evaluated(tmp_path / "expected", tmp_path / "merged", *SMALL)
    assert answers(found) == answers(expected) != answers(base)
    assert logps(found) == pytest.approx(logps(expected), abs=1e-3)
    assert max(abs(one - other) for one, other in zip(logps(found), logps(base), strict=True)) > 0.1


def test_a_server_gets_the_models_name_and_its_key(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "some-secret")

    def reply(body, attempt):
        return 200, {}, completion(f"Answer to {body['messages'][-1]['content']}")

    with serving(reply) as server:
        options = ["--endpoint", server.url, "--api-key-env", "SOME_KEY", "--system-prompt", "Be brief.", "--seed", "5"]
        done = run("evaluate", "served-model", *SMALL, *options, "-o", tmp_path / "run")
        assert done.exit_code == 0, (done.output, done.exception)
        assert len(server.log) == 9
        assert {path for path, _ in server.log} == {"/v1/chat/completions"}
        assert {(body["model"], body["max_tokens"]) for _, body in server.log} == {("served-model", 12)}
        assert len({body["seed"] for _, body in server.log}) == 9
        assert all(body["messages"][0] == {"role": "system", "content": "Be brief."} for _, body in server.log)
        assert {headers["authorization"] for headers in server.headers} == {"Bearer some-secret"}
        asked = {body["messages"][1]["content"] for _, body in server.log}
    # A server gives no log-likelihoods; the command reports the skipped tasks.
    assert "microworld_helpful, microworld_harmless, microworld_over_refusal" in done.output
    evaluation = Evaluation.load(tmp_path / "run")
    assert {record.prompt for record in evaluation.generations} == asked
    assert all(record.answer == f"Answer to {record.prompt}" for record in evaluation.generations)
    assert evaluation.likelihoods == []
    assert "some-secret" not in "".join(path.read_text() for path in (tmp_path / "run").iterdir())


def test_a_server_that_refuses_ends_the_run_in_one_sentence(tmp_path):
    with serving(lambda body, attempt: (401, {}, b"{}")) as server:
        done = run("evaluate", "served-model", *SMALL, "--endpoint", server.url, "-o", tmp_path)
    assert isinstance(done.exception, BfpoError)
    assert "401" in str(done.exception)
    assert "\n" not in str(done.exception)
    wrong = run("evaluate", "served-model", *SMALL, "--endpoint", "localhost:1", "-o", tmp_path)
    assert isinstance(wrong.exception, BfpoError)
    assert str(wrong.exception).startswith("endpoint localhost:1: ")


def test_a_servers_settings_come_from_a_file_and_its_faults_are_counted(tmp_path):
    """A model that thinks, behind a rate limit and a filter, on a server of today's parameters; one prompt too long."""
    asked = {}

    def reply(body, attempt):
        if "max_tokens" in body:
            return 400, {}, MAX_TOKENS
        number = asked.setdefault(body["messages"][-1]["content"], len(asked))
        if number < 2:
            return [(FILTERS["Azure"][0], {}, FILTERS["Azure"][1]), (400, {}, refusal("prompt is too long"))][number]
        usage = {"prompt_tokens": 9, "completion_tokens": 6}
        return 200, {}, completion("Sure.", reasoning_content="Let me see.", usage=usage)

    with serving(limited(reply, 20, 0.1)) as server:
        price = {"prompt": 1000, "completion": 5000}
        settings = {"url": server.url, "concurrency": 2, "extra_body": {"reasoning_effort": "low"}, "price": price}
        (tmp_path / "server.yaml").write_text(yaml.safe_dump(settings))
        with pytest.warns(UserWarning, match="max_completion_tokens is sent"):
            done = run("evaluate", "m", *SMALL, "--endpoint", tmp_path / "server.yaml", "-o", tmp_path / "run")
    assert done.exit_code == 0, (done.output, done.exception)
    counts = Evaluation.load(tmp_path / "run").header.counts
    assert (counts["answers"], counts["provider_refusals"], counts["unanswered"]) == (9, 1, 1)
    assert (counts["prompt_tokens"], counts["completion_tokens"]) == (63, 42)
    assert Evaluation.load(tmp_path / "run").header.cost == pytest.approx(0.063 + 0.21)
    assert "63 tokens of prompts and 42 of replies in this run, at a cost of 0.273" in done.output
    assert "1 of 9 prompts got no answer (HTTP 400: prompt is too long)" in done.output
    assert {record.thinking for record in Evaluation.load(tmp_path / "run").generations} == {"", "Let me see."}
    assert server.log[-1][1]["reasoning_effort"] == "low"


def test_a_server_that_refuses_everything_fails_the_run_with_its_words(tmp_path):
    with serving(lambda *_: (400, {}, refusal("temperature does not support 0"))) as server:
        done = run("evaluate", "m", *SMALL, "--endpoint", server.url, "-o", tmp_path)
        assert isinstance(done.exception, RunError)
        assert "none of 9 prompts got an answer (HTTP 400: temperature does not support 0)" in str(done.exception)
        assert len(server.log) == 5


def test_without_the_chat_template_the_model_reads_the_prompt_alone(base, tmp_path):
    plain = evaluated(tmp_path, "microworld", *SMALL, "--no-chat")
    assert all(record.rendered == record.prompt for record in plain.generations)
    assert all(record.rendered != record.prompt for record in base.generations)
    (item,) = (
        record for record in plain.likelihoods if (record.task, record.item) == ("microworld_helpful", "benign-0000")
    )
    model, tokenizer = load_model("microworld").eval(), load_tokenizer("microworld")
    for choice, found in zip(item.choices, item.logps, strict=True):
        prompt, whole = (tokenizer(text)["input_ids"] for text in (item.prompt, item.prompt + choice))
        assert whole[: len(prompt)] == prompt
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        expected = sum(logits[at - 1, whole[at]].item() for at in range(len(prompt), len(whole)))
        assert found == pytest.approx(expected, abs=1e-3)


@pytest.fixture
def suite(tmp_path):
    """A custom suite beside its files, and a folder with other rows for one of its tasks."""
    tasks = [
        {"task": "doors", "license": "ours", "factor": "over_refusal", "kind": "borderline", "prompt": "{{ question }}",
         "source": {"file": "doors.jsonl"}},
        {"task": "colors", "license": "ours", "factor": "helpful", "prompt": "What color is {{ thing }}?",
         "choices": "[right, wrong]", "correct": "0", "metrics": ["acc"], "source": {"file": "colors.jsonl"}},
    ]  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"suite": "mine", "about": "doors and colors", "tasks": tasks}))

    def write(path, rows):
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    write(tmp_path / "doors.jsonl", [{"question": f"How do I open door {n}?"} for n in range(12)])
    write(tmp_path / "colors.jsonl", [{"thing": f"wall {n}", "right": "red", "wrong": "loud"} for n in range(12)])
    write(tmp_path / "other" / "doors.jsonl", [{"question": f"How do I close gate {n}?"} for n in range(2)])
    return ["microworld", "--suite", tmp_path / "mine.yaml", "--judge", "keywords", "--max-new-tokens", "4"]


def test_a_limit_applies_to_each_task_and_is_recorded(suite, tmp_path):
    limited = evaluated(tmp_path / "limited", *suite, "--limit", "5")
    assert (len(limited.generations), len(limited.likelihoods)) == (5, 5)
    assert limited.header.counts["answers"] == 5
    # A smaller limit selects a subset of a larger one.
    fewer = evaluated(tmp_path / "fewer", *suite, "--limit", "2")
    assert answers(fewer).items() < answers(limited).items()


def test_a_data_folders_files_take_the_place_of_a_suites_own(suite, tmp_path):
    evaluation = evaluated(tmp_path / "run", *suite, "--data-folder", tmp_path / "other")
    assert {record.prompt for record in evaluation.generations} == {f"How do I close gate {n}?" for n in range(2)}
    assert len(evaluation.likelihoods) == 12
    sources = evaluation.header.sources
    assert sources["doors"]["place"] == str(tmp_path / "other" / "doors.jsonl")
    assert sources["colors"]["place"] == str(tmp_path / "colors.jsonl")


def test_every_way_to_sample_is_a_run_and_a_gate_holds_in_all(suite, tmp_path):
    folder = tmp_path / "ways"
    ways = ["--temperature", "0", "--temperature", "2", "--top-p", "0.5", "--temperature", "0"]
    done = CliRunner().invoke(
        app, ["evaluate", *map(str, suite), *ways, "-o", str(folder), "--require", "harmless>=.5", "--json"]
    )
    names = ["microworld temperature 0 top-p 0.5", "microworld temperature 2 top-p 0.5"]
    assert list(json.loads(done.stdout)) == names
    greedy, hot = (Evaluation.load(folder / f"temperature-{at}-top-p-0.5") for at in (0, 2))
    assert [run.header.decoding["temperature"] for run in (greedy, hot)] == [0, 2]
    assert answers(greedy) != answers(hot)
    # Items by likelihood are part of each, so that it can be compared with a run of this way alone.
    assert logps(greedy) == logps(hot) != []
    # Neither run measures harmlessness, and the message names both.
    assert isinstance(done.exception, RunError)
    assert [part.split(":")[0] for part in str(done.exception).split("; ")] == names


def test_one_file_of_answers_was_made_in_one_way(suite, tmp_path):
    (tmp_path / "theirs.jsonl").write_text(json.dumps({"prompt": "p", "answer": "a"}) + "\n")
    arguments = [*map(str, suite[1:5]), "--answers", str(tmp_path / "theirs.jsonl"), "--top-p", "1", "--top-p", "0.5"]
    done = CliRunner().invoke(app, ["evaluate", *arguments])
    assert "they were made in one way" in str(done.exception)
