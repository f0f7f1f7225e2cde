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
    assert planned == {"prompts": 24, "answers": 96, "most tokens": 96 * 40}
    assert not (tmp_path / "run").exists()


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
