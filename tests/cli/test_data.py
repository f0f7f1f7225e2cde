"""Tests of ``bfpo data``: its output on the bundled tokenizer, and that text from data is never markup."""

import json

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError

ROW = {
    "prompt": "How do I open my own locker?",
    "chosen": "To open your own locker: [bold]find[/bold] the small key.",
    "rejected": "I can't help you with this.",
    "chosen_is_safe": True,
    "rejected_is_safe": True,
}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | {"note": 1, "prompt": "Second?"}) + "\n")
    return str(path)


def run(*arguments):
    return CliRunner().invoke(app, ["data", *arguments])


def test_check_reports_what_is_there(source):
    done = run("check", source)
    assert done.exit_code == 0
    for words in ("SS 2", "note", "No problems.", "kept", "2"):
        assert words in done.output
    report = json.loads(run("check", source, "--json").output)
    assert (report["kept"], report["cells"], report["problems"]) == (2, {"SS": 2}, [])


def test_check_says_what_a_set_without_flags_is_good_for(source, tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_text(json.dumps({"prompt": "q?", "chosen": "a", "rejected": "b"}) + "\n")
    assert "No answer has a safety flag" in run("check", str(path)).output
    assert "No answer has a safety flag" not in run("check", source).output


def test_show_prints_rows_as_they_are(source):
    done = run("show", source, "-n", "1")
    assert "[bold]find[/bold]" in done.output
    assert "Second?" not in done.output


def test_list_names_the_public_sets_and_show_previews_one(monkeypatch):
    import datasets

    done = run("list")
    for words in ("pku-saferlhf-2023 PKU-Alignment/PKU-SafeRLHF at ff7ba910:", "ultrachat ", "Anthropic/hh-rlhf"):
        assert words in " ".join(done.output.split())
    dialogue = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "y"}]
    rows = datasets.Dataset.from_list([{"prompt": "q", "prompt_id": "id", "messages": dialogue}])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **options: rows)
    assert "responses: [[{'role': 'assistant', 'content': 'y'}]]" in run("show", "ultrachat").output.replace("\n", " ")


def test_show_tokens_prints_ids_of_every_answer(source):
    done = run("show", source, "-n", "1", "--tokens")
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "row 1, answer 1" in text
    assert "row 1, answer 2" in text
    assert text.count("<s>·1 ") == 2
    # The end of the user's turn and of the answer, of each of the two answers.
    assert text.count("</s>·2") == 4
    assert "truncated answers: 0" in text


def test_show_tokens_counts_what_was_cut(source):
    done = run("show", source, "-n", "1", "--tokens", "--max-length", "24")
    assert "truncated answers: 1" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--column", "nonsense"], "theirs=ours"),
        (["--unknown-safety", "maybe"], "write error, drop, or a probability"),
        (["--unknown-safety", "1.5"], "lies in"),
    ],
)
def test_wrong_options_are_named(source, arguments, message):
    done = run("check", source, *arguments)
    assert isinstance(done.exception, BfpoError)
    assert message in str(done.exception)


def test_unknown_tokenizer_is_named(source):
    done = run("show", source, "--tokens", "--tokenizer", "no/such/tokenizer")
    assert isinstance(done.exception, BfpoError)
    assert "no/such/tokenizer" in str(done.exception)


def test_show_tokens_tells_apart_what_is_trained_on(tmp_path):
    turns = [
        {"role": "user", "content": "How do I open my own locker?"},
        {"role": "assistant", "content": "Use the key."},
    ]
    row = {"prompt": turns[:1], "chosen": [turns[1], *turns], "rejected": [turns[1] | {"content": "I can't."}]}
    path = tmp_path / "turns.jsonl"
    path.write_text(json.dumps(row) + "\n")
    shown = " ".join(run("show", str(path), "--tokens").output.split())
    assert "answers with context: 1" in shown
    assert "green tokens are trained on, dim ones are only read" in shown
    first, second = shown.split("row 1, answer 1")[1].split("row 1, answer 2")
    assert "tokens are trained on)" in first
    assert "tokens are trained on)" not in second


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--unknown-order", "0.7"], "--unknown-order 0.7: write error, drop, or 0.5"),
        (["--unknown-order", "half"], "--unknown-order half: write error, drop, or 0.5"),
        (["--unknown-safety", "2"], "a probability lies in [0, 1]"),
        (["--column", "gone=prompt"], "no row has the column"),
    ],
)
def test_options_that_do_not_fit_are_refused(source, options, words):
    done = run("check", source, *options)
    assert isinstance(done.exception, BfpoError)
    assert words in str(done.exception)


def test_unknown_order_and_columns_to_leave_out_are_options(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(ROW | {"chosen_is_better": None, "input": "i"}) + "\n")
    done = run("check", str(path), "--unknown-order", "0.5", "--column", "input=", "--json")
    assert json.loads(done.output)["filled_unordered"] == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("twice.csv", "prompt,chosen,rejected,chosen\na,b,c,d\n", "twice.csv: it has two columns 'chosen'; rename one"),
        ("twice.jsonl", '{"prompt": "a", "prompt": "b", "chosen": "c", "rejected": "d"}\n', "the key 'prompt' twice"),
        ("deep.json", '[{"prompt": "a", "chosen": [{"role": "x", "role": "y"}]}]', "deep.json: an object has the key"),
    ],
)
def test_what_is_there_twice_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    done = run("check", str(tmp_path / name))
    assert words in str(done.exception) + done.output
    assert done.exit_code != 0


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        ("check", ["--split", "test"], "is a file, which has none; leave it out, or name"),
        ("check", ["--revision", "main"], "--revision: "),
        ("check", ["--column", "a=chosen", "--column", "a=rejected"], "'a' is also renamed to 'chosen'"),
        ("show", ["--tokenizer", "microworld", "--max-length", "5"], "only work together with --tokens"),
    ],
)
def test_options_that_nothing_reads_are_refused(source, command, options, words):
    done = run(command, source, *options)
    assert isinstance(done.exception, BfpoError)
    assert words in str(done.exception)
