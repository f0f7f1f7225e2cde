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
    assert "No row has a safety flag for all its answers" in run("check", str(path)).output
    # The flag of one answer alone is no flag of the pair.
    path.write_text(json.dumps({"prompt": "q?", "chosen": "a", "rejected": "b", "chosen_is_safe": True}) + "\n")
    assert "No row has a safety flag for all its answers" in run("check", str(path)).output
    assert "No row has a safety flag for all" not in run("check", source).output


def test_check_shows_one_line_for_all_rows_with_the_same_problem(tmp_path):
    path = tmp_path / "pairs.jsonl"
    wrong = [ROW | {"prompt": f"Question {at}?", "chosen_is_safe": "maybe"} for at in range(12)]
    other = ROW | {"prompt": "Another?", "rejected_is_safe": 3}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*wrong, other]))
    done = run("check", str(path))
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert "13 problems" in lines
    assert sum("'maybe' is not a" in line for line in lines) == 1
    assert "and 4 more" in done.output
    assert sum("3 is not a" in line for line in lines) == 1
    problems = json.loads(run("check", str(path), "--json").output)["problems"]
    assert [problem["row"] for problem in problems] == list(range(1, 14)), "JSON names every row"


@pytest.mark.parametrize("words", [("yes", "no"), ("Yes", "NO"), ("true", "false"), ("1", "0")])
def test_flags_in_csv_may_be_words(tmp_path, words):
    path = tmp_path / "pairs.csv"
    path.write_text(f"prompt,chosen,rejected,chosen_is_safe,rejected_is_safe\nq?,yes,no,{words[0]},{words[1]}\n")
    assert json.loads(run("check", str(path), "--json").output)["cells"] == {"SU": 1}
    assert "yes" in run("show", str(path)).output, "texts stay as they are"


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_in_csv_are_named(tmp_path, mark, name):
    path = tmp_path / "pairs.csv"
    path.write_text(f"{mark.join(['prompt', 'chosen', 'rejected'])}\n{mark.join('abc')}\n")
    assert f"its columns are separated by {name}; save it with commas" in str(run("check", str(path)).exception)


def test_folders_that_save_to_disk_wrote_are_sources(tmp_path, source):
    import datasets

    rows = datasets.Dataset.from_list([ROW, ROW | {"prompt": "Second?"}])
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows, "held_out": rows.select([1])}).save_to_disk(tmp_path / "two")
    reports = [
        json.loads(run("check", str(tmp_path / name), *more, "--json").output)
        for name, more in (("one", ()), ("two", ()), ("two", ("--split", "held_out")))
    ]
    assert [report["cells"] for report in reports] == [{"SS": 2}, {"SS": 2}, {"SS": 1}]
    assert reports[0]["digest"] == reports[1]["digest"]
    assert "it has no split 'heldout' (did you mean 'held_out'?); choose from train, held_out" in str(
        run("check", str(tmp_path / "two"), "--split", "heldout").exception
    )
    assert "a folder that save_to_disk didn't write" in str(run("check", str(tmp_path)).exception)
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"damaged")
    assert "it can't be loaded" in str(run("check", str(tmp_path / "one")).exception)


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
