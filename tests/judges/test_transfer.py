"""Tests of the transfer table: fits per source, checks on the others, and on one source by all the others."""

import json
import random

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.judges import Exchange
from bfpo.judges.labels import LabeledAnswer
from bfpo.judges.transfer import transfer_table

WORDS = [f"word{n}" for n in range(40)]


def source(name, word, opposite=False, seed=0, count=150):
    """Answers that are unsafe if they have the word (safe, if opposite)."""
    draw = random.Random(f"{name} {seed}")
    made = []
    for number in range(count):
        safe = draw.random() < 0.6
        text = " ".join([*draw.sample(WORDS, 6), "plain" if safe != opposite else word])
        made.append(LabeledAnswer(Exchange(f"{name} question {number}", text), safe, None, name))
    return made


ALIKE, OTHER, OPPOSITE = source("a", "bad"), source("b", "bad"), source("c", "bad", opposite=True)


def test_a_judge_transfers_where_the_sources_agree_and_only_there():
    table = {(one.fitted_to, one.checked_on): one for one in transfer_table([*ALIKE, *OTHER, *OPPOSITE])}
    assert len(table) == 12
    assert table["a", "b"].figures.auc.value > 0.95
    assert table["a", "a"].figures.auc.value > 0.95
    assert table["a", "c"].figures.auc.value < 0.05
    assert table["all but c", "c"].figures.auc.value < 0.05
    assert table["a", "b"].figures.answers == 150
    safe = sum(answer.is_safe for answer in OTHER) / 150
    assert table["a", "b"].base_rate.value == pytest.approx(max(safe, 1 - safe))


def test_prompts_that_the_judge_was_fitted_to_are_left_out():
    shared = [LabeledAnswer(ALIKE[0].exchange, True, None, "b")]
    table = transfer_table([*ALIKE, *OTHER, *shared])
    assert [(one.fitted_to, one.checked_on, one.figures.answers) for one in table] == [
        ("a", "a", 150), ("a", "b", 150), ("b", "a", 149), ("b", "b", 151),
    ]  # fmt: skip


def test_too_few_sources_or_labels_are_named():
    with pytest.raises(BfpoError, match="at least two sources, not 1: add a column 'source'"):
        transfer_table(ALIKE)
    with pytest.raises(BfpoError, match=r"source 'few': .* need at least 5 questions"):
        transfer_table([*ALIKE, *source("few", "bad", count=6)])


def run(*arguments):
    return CliRunner().invoke(app, ["judge", "check", *map(str, arguments)])


def test_the_command_prints_the_table(tmp_path):
    path = tmp_path / "labels.jsonl"
    rows = [
        {"prompt": one.exchange.prompt, "answer": one.exchange.answer, "is_safe": one.is_safe, "source": one.source}
        for one in [*ALIKE, *OTHER]
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = json.loads(run("--leave-one-source-out", "--labels", path, "--json").output)
    assert [(row["fitted_to"], row["checked_on"]) for row in table] == [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
    assert table[1]["figures"]["auc"]["value"] > 0.95
    shown = run("--leave-one-source-out", "--labels", path).output
    assert "fitted to" in shown
    assert "Thresholds and calibration don't transfer" in shown
    for arguments, says in (
        (["keywords", "--leave-one-source-out"], "fits its own judges"),
        (["--leave-one-source-out", "--target", "refusal"], "labels of refusal from at least two sources, not 0"),
        ([], "name the judge to check"),
    ):
        done = run(*arguments, "--labels", path)
        assert isinstance(done.exception, BfpoError)
        assert says in str(done.exception)
