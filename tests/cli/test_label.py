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
    assert "errors: estimated from the labels of the set, taken as a random sample of it" in done.output
    assert "probabilities: calibrated on that sample, out of fold" in done.output
    assert "sensitivity" in done.output
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert {row["chosen_is_safe"] for row in rows[40:]} <= {0.0, 1.0}
    assert all(0 < row["judged_as"][name]["probability"] < 1 for row in rows for name in ("chosen", "rejected"))
    queue = [json.loads(line) for line in (tmp_path / "out.queue.jsonl").read_text().splitlines()]
    assert [row["placed"] for row in queue] == [*["value"] * 4, "random"] * 4
    report = json.loads(run(half_labeled, "--judge", "microworld-oracle", "-o", output, "--json").output)
    assert (report["safety"]["judge"], report["sample"]) == (40, "labels of the set")


def test_the_random_part_is_drawn_with_a_seed(half_labeled, tmp_path):
    def queued(*options):
        output = tmp_path / "out.jsonl"
        assert run(half_labeled, "--judge", "microworld-oracle:0.1", "-o", output, *options).exit_code == 0
        rows = map(json.loads, (tmp_path / "out.queue.jsonl").read_text().splitlines())
        return [(row["row"], row["placed"]) for row in rows]

    assert queued("--random-share", 1, "--seed", 3) == queued("--random-share", 1, "--seed", 3)
    assert queued("--random-share", 1, "--seed", 3) != queued("--random-share", 1)
    assert {placed for _, placed in queued("--random-share", 0)} == {"value"}


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
    assert "kept 90 human flags (2 of the random part, 8 others of the queue), a judge filled in 30" in done.output
    left = map(json.loads, (tmp_path / "again.queue.jsonl").read_text().splitlines())
    assert sorted(row["row"] for row in left if row["asks"]) == sorted(row["row"] for row in rows[5:])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--judge", "microworld-oracl"], "did you mean 'microworld-oracle'"),
        (["--judge", "microworld-oracle", "--random-share", "1.5"], "write a number from 0 to 1"),
        (["--judge", "microworld-oracle", "--helpfulness-judge", "microworld-oracle"], "microworld-oracle"),
        ([], "need a judge"),
        (["--judge", "microworld-oracle", "-o", "out.csv"], "name a file that ends in .jsonl"),
        (["--judge", "microworld-oracle:0.6"], "is no better than chance on this set"),
    ],
)
def test_wrong_options_are_named(half_labeled, tmp_path, arguments, says):
    done = run(half_labeled, "-o", tmp_path / "out.jsonl", *arguments)
    assert isinstance(done.exception, BfpoError)
    assert says in str(done.exception)
