"""``bfpo redteam`` on the microworld: its plan, its table and JSON, resuming, and what it refuses."""

import json
import re

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from redteam.test_running import microworld_pairs


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """Requests of the microworld, in the columns of a prompt bank."""
    path = tmp_path_factory.mktemp("bank") / "bank.jsonl"
    path.write_text("".join(json.dumps(vars(pair)) + "\n" for pair in microworld_pairs(30)))
    return path


def bfpo(*arguments):
    done = CliRunner().invoke(app, ["redteam", *map(str, arguments)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def options(bank, folder):
    return [
        "microworld", "--judge", "microworld-oracle", "--prompts", bank, "--attacks", 8, "--turns", 2,
        "--style", "plain", "--held-out-style", "spelling", "--max-new-tokens", 40, "--temperature", 1.5, "-o", folder,
    ]  # fmt: skip


def test_attacks_are_tried_shown_and_kept(bank, tmp_path):
    printed = bfpo(*options(bank, tmp_path / "run"))
    assert "answered unsafely" in printed
    assert "spelling (held out)" in printed
    assert f"groups to train on in {tmp_path / 'run' / 'groups.jsonl'}" in " ".join(printed.split())
    found = json.loads(bfpo(*options(bank, tmp_path / "run"), "--json"))
    assert found["attacks"] == {"plain": 8, "spelling": 4}
    assert set(found["success"]["all"]) == {"value", "low", "high", "n"}
    assert found["groups"] == len((tmp_path / "run/groups.jsonl").read_text().splitlines())


def test_fewer_attacks_than_asked_for_are_told(bank, tmp_path):
    given = options(bank, tmp_path / "run")
    given[given.index("--attacks") + 1] = 40
    assert "Tried 30 of 40 attacks" in bfpo(*given)


def test_the_plan_counts_answers_and_asks_for_none(bank, tmp_path):
    printed = " ".join(bfpo(*options(bank, tmp_path / "run"), "--plan").split())
    assert "8 attacks in 2 turns and 4 in held-out styles, each with its twin: 96 answers of at most 40" in printed
    planned = json.loads(bfpo(*options(bank, tmp_path / "run"), "--plan", "--json"))
    assert planned == {"prompts": 24, "answers": 96, "most_tokens": 96 * 40}
    more = options(bank, tmp_path / "run")
    more[more.index("--attacks") + 1] = 200
    # There are 30 pairs, and one style on either side.
    assert json.loads(bfpo(*more, "--plan", "--json"))["prompts"] == 2 * (30 + 30)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--refusal-judge", "refusal"], "no judge 'refusal' .did you mean 'refusals'?"),
        (["--refusal-judge", "gone"], "no judge 'gone'"),
        (["--refusal-judge", "fitted:gone"], "gone: it has no judge.json"),
        (["--refusal-judge", "compliance:replay:gone.jsonl"], "gone.jsonl: there is no such file"),
        (["--refusal-judge", "harmbench:./gone"], "there is no model at './gone'"),
        (["--attacker", "./gone"], "there is no model at './gone'"),
        (["--attacker", "gone.json"], "gone.json: can't be read as a dial"),
        (["--attacker", "served", "--attacker-endpoint", "localhost"], "'localhost' is not an address"),
    ],
)
def test_a_plan_names_a_judge_or_a_model_that_does_not_exist(bank, tmp_path, arguments, message):
    for more in ([], ["--rounds", "1"]):
        given = ["redteam", *map(str, options(bank, tmp_path / "run")), "--plan", *more, *arguments]
        done = CliRunner().invoke(app, given)
        assert isinstance(done.exception, BfpoError), done.output
        assert re.search(message, str(done.exception))


def test_a_plan_names_an_attacked_model_that_does_not_exist(bank, tmp_path):
    (tmp_path / "empty").mkdir()
    for model in (tmp_path / "empty", "no/such-model", "gone.json"):
        given = [model, *options(bank, tmp_path / "run")[1:], "--plan"]
        done = CliRunner().invoke(app, ["redteam", *map(str, given)])
        assert isinstance(done.exception, BfpoError), done.output
        assert str(model) in str(done.exception)
    served = [*options(bank, tmp_path / "run"), "--plan", "--endpoint", "http://localhost:1/v1"]
    assert "8 attacks" in bfpo(*served)


def test_evaluation_prompts_are_left_out(bank, tmp_path):
    prompts = tmp_path / "evaluated.txt"
    prompts.write_text("\n".join(pair.risky for pair in microworld_pairs(30)))
    done = CliRunner().invoke(
        app, ["redteam", *map(str, options(bank, tmp_path / "run")), "--evaluation", str(prompts)]
    )
    assert "8 attacks that overlap with evaluation prompts" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--style", "plian"], "no attack style 'plian'.*plain"),
        (["--style", "plain", "--held-out-style", "plain"], "must differ"),
        (["--temperature", "0"], "two or more at a temperature above 0"),
        (["--turns", "300"], "200 attacks can't be tried in 300 turns"),
        (["--prompts", "gone.jsonl"], "gone.jsonl"),
        (["--evaluation", "gone.txt"], "gone.txt"),
    ],
)
def test_wrong_usage_is_one_sentence(tmp_path, arguments, message):
    given = ["redteam", "microworld", "--judge", "microworld-oracle", "-o", str(tmp_path / "run"), *arguments]
    done = CliRunner().invoke(app, given)
    assert isinstance(done.exception, BfpoError), done.output
    assert re.search(message, str(done.exception))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(
        "stage: preference\nmodel: x\noutput_dir: x\ndata: [{name: red-team, path: x}]\nbeta: 0.2\nmax_steps: 2\n"
        "learning_rate: 1.0e-4\nmax_length: 256\nmicro_batch_tokens: 2048\nreference_cache: null\nbatch_size: 8\n"
    )
    return path


def rounds(bank, folder, recipe):
    given = [*options(bank, folder), "--rounds", 1, "--recipe", recipe, "--held-out-requests", 0.5]
    given[given.index("--attacks") + 1] = 4
    return given


def test_rounds_print_what_came_before_and_after(bank, recipe, tmp_path):
    given = rounds(bank, tmp_path / "run", recipe)
    planned = json.loads(bfpo(*given, "--plan", "--json"))
    assert (planned["rounds"], planned["trainings"], planned["answers_in_rounds"]) == (1, 1, 2 * (4 + 2) * 4)
    assert planned["most_tokens"] == 40 * planned["answers"]
    assert f"1 rounds of 4 attacks and 2 in held-out styles, each with its twin: {2 * (4 + 2) * 4} answers" in " ".join(
        bfpo(*given, "--plan").split()
    )
    assert not (tmp_path / "run").exists()
    printed = " ".join(bfpo(*given, "--evaluation-judge", "microworld-oracle:0.1").split())
    assert "unsafe before unsafe after twins refused" in printed
    assert "spelling (held out)" in printed
    assert "verdicts of microworld-oracle:0.1,0.1,0; microworld-oracle:0,0,0 labeled the training data" in printed
    assert f"The last model is {tmp_path / 'run' / 'model-1'}" in printed
    found = CliRunner().invoke(
        app, ["redteam", *map(str, given), "--evaluation-judge", "microworld-oracle:0.1", "--json"]
    )
    assert json.loads(found.stdout)["model"] == str(tmp_path / "run/model-1")


def test_without_an_evaluation_judge_the_table_says_who_judged(bank, recipe, tmp_path):
    printed = " ".join(bfpo(*rounds(bank, tmp_path / "run", recipe)).split())
    assert "verdicts of microworld-oracle:0,0,0, which also labeled the training data" in printed


def test_an_attacker_adds_its_style(bank, tmp_path):
    printed = bfpo(*options(bank, tmp_path / "run"), "--attacker", "microworld", "--plan")
    assert "asked for 4 wordings of each request" in " ".join(printed.split())
    bfpo(*options(bank, tmp_path / "run"), "--attacker", "microworld")
    summary = json.loads((tmp_path / "run/redteam.json").read_text())
    assert summary["settings"]["styles"] == ["plain", "attacker"]
    assert summary["attacker"]["model"] == "microworld"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "2", "--endpoint", "http://localhost:1/v1"], "can't be trained: name a local model"),
        (["--recipe", "x.yaml"], "--recipe: only works together with --rounds"),
        (["--evaluation-judge", "keywords"], "--evaluation-judge: only works together with --rounds"),
        (["--held-out-requests", "0.5"], "--held-out-requests: only works together with --rounds"),
        (["--rounds", "1", "--held-out-requests", "1"], "can't be held out"),
        (["--rounds", "1", "--recipe", "gone.yaml"], "gone.yaml"),
        (["--attacker-endpoint", "http://localhost:1/v1"], "--attacker-endpoint: only works together with --attacker"),
        (["--style", "attacker"], "give both, or none of them"),
    ],
)
def test_wrong_usage_of_rounds_and_attacker(bank, tmp_path, arguments, message):
    given = ["redteam", "microworld", "--judge", "microworld-oracle", "-o", str(tmp_path / "run"), *arguments]
    done = CliRunner().invoke(app, given)
    assert isinstance(done.exception, BfpoError), done.output
    assert re.search(message, str(done.exception))
    assert not (tmp_path / "run").exists()
