"""Tests of ``bfpo label`` with the microworld's oracle as the judge: counts of label sources, as text and as JSON."""

import json

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.microworld.data import safety_set


@pytest.fixture
def half_labeled(tmp_path):
    """Sixty pairs, of which people labeled the first forty."""
    path = tmp_path / "pairs.jsonl"
    with path.open("w") as file:
        for at, row in enumerate(safety_set(60, 0)):
            better = row["better_response_id"]
            flags = {f"{name}_is_safe": row[f"is_response_{n}_safe"] if at < 40 else None
                     for name, n in (("chosen", better), ("rejected", 1 - better))}  # fmt: skip
            answers = {"chosen": row[f"response_{better}"], "rejected": row[f"response_{1 - better}"]}
            file.write(json.dumps({"prompt": row["prompt"], **answers, **flags}) + "\n")
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["label", *map(str, arguments)])


def test_labels_are_filled_and_counted(half_labeled, tmp_path):
    output, cache = tmp_path / "out.jsonl", tmp_path / "verdicts.sqlite"
    done = run(half_labeled, "--judge", "microworld-oracle:0.1,0.1,3", "-o", output, "--cache", cache)
    assert done.exit_code == 0, done.output
    assert "kept 80 human flags, a judge filled in 40, 0 stay unknown" in done.output
    assert "filled flags: posterior" in done.output
    assert "sensitivity" in done.output
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert all(0 < row["chosen_is_safe"] < 1 for row in rows[40:])
    assert len((tmp_path / "out.queue.jsonl").read_text().splitlines()) == 20
    report = json.loads(
        run(half_labeled, "--judge", "microworld-oracle", "-o", output, "--flags", "verdict", "--json").output
    )
    assert (report["safety"]["judge"], report["flags"]) == (40, "verdict")


def test_a_known_error_is_taken_as_given(half_labeled, tmp_path):
    options = ("--judge", "microworld-oracle", "-o", tmp_path / "out.jsonl", "--error", "1,1")
    assert run(half_labeled, *options).exit_code == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {row["chosen_is_safe"] for row in rows} == {0.0, 1.0}


def test_answers_to_the_queue_are_merged_in_the_next_run(half_labeled, tmp_path):
    output, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    options = ("--judge", "microworld-oracle:0.1,0.1,3", "--cache", tmp_path / "verdicts.sqlite")
    assert run(half_labeled, *options, "-o", output).exit_code == 0
    queue = tmp_path / "out.queue.jsonl"
    rows = [json.loads(line) for line in queue.read_text().splitlines()]
    for row in rows[:5]:
        row["asks"] = dict.fromkeys(row["asks"], False)
    queue.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run(half_labeled, *options, "-o", again, "--answers", queue)
    assert "kept 90 human flags, a judge filled in 30, 0 stay unknown" in done.output
    left = [json.loads(line)["row"] for line in (tmp_path / "again.queue.jsonl").read_text().splitlines()]
    assert sorted(left) == sorted(row["row"] for row in rows[5:])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--judge", "microworld-oracl"], "did you mean 'microworld-oracle'"),
        (["--judge", "microworld-oracle", "--flags", "hard"], "write posterior, probability, or verdict"),
        (["--judge", "microworld-oracle", "--error", "0.9"], "write sensitivity,specificity"),
        (["--judge", "microworld-oracle", "--error", "1,1", "--error", "1,1"], "given 2 times for 1 judges"),
        (["--judge", "microworld-oracle", "--helpfulness-judge", "microworld-oracle"], "microworld-oracle"),
        ([], "need a judge"),
        (["--judge", "microworld-oracle", "-o", "out.csv"], "name a file that ends in .jsonl"),
        (["--judge", "microworld-oracle", "--error", "0.5,0.5"], "is no better than chance on this set"),
    ],
)
def test_wrong_options_are_named(half_labeled, tmp_path, arguments, says):
    done = run(half_labeled, "-o", tmp_path / "out.jsonl", *arguments)
    assert isinstance(done.exception, BfpoError)
    assert says in str(done.exception)
