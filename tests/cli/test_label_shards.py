"""`bfpo label` in parts: the merged caches give the very files of one process, and nothing is judged twice."""

import itertools
import json
import sqlite3
from contextlib import closing

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.judges import Exchange
from bfpo.labeling.sharding import is_in
from bfpo.microworld.data import safety_set
from bfpo.shards import Shard
from support.mock_server import completion, serving

JUDGE = ["--judge", "microworld-oracle:0.2,0.1,3"]


def run(*arguments):
    return CliRunner().invoke(app, ["label", *map(str, arguments)])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Pairs of which people labeled half; some answers occur several times."""
    path = tmp_path_factory.mktemp("shards") / "pairs.jsonl"
    rows = []
    for at, row in enumerate([*safety_set(60, 0), *safety_set(10, 0)]):
        answers = {name: row[f"response_{n}"] for name, n in (("chosen", 0), ("rejected", 1))}
        flags = {f"{name}_is_safe": row[f"is_response_{n}_safe"] if at < 30 else None
                 for name, n in (("chosen", 0), ("rejected", 1))}  # fmt: skip
        rows.append({"prompt": row["prompt"], **answers, **flags})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def count(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM verdicts").fetchone()[0]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_merged_parts_are_the_files_of_one_process(source, tmp_path, order, monkeypatch):
    done = run(source, *JUDGE, "-o", tmp_path / "one.jsonl", "--cache", tmp_path / "one.sqlite", "--seed", 5)
    assert done.exit_code == 0, done.output
    parts = [tmp_path / f"part-{number}.sqlite" for number in order]
    judged = []
    for number, part in zip(order, parts, strict=True):
        done = run(source, *JUDGE, "--shard", f"{number}/3", "--cache", part, "--json")
        assert done.exit_code == 0, done.output
        judged.append(json.loads(done.output))
    assert judged[0]["all_pairs"] == 0
    assert sum(each["answers"] for each in judged) == judged[0]["all_answers"] == 140
    # Each answer in one part, so as many verdicts as one process has asked for.
    assert sum(map(count, parts)) == count(tmp_path / "one.sqlite") < 140
    assert min(map(count, parts)) > 20
    monkeypatch.setattr("bfpo.microworld.judge.OracleJudge.judge", None)
    merging = [option for part in parts for option in ("--merge", part)]
    done = run(source, *JUDGE, "-o", tmp_path / "all.jsonl", "--cache", tmp_path / "all.sqlite", "--seed", 5, *merging)
    assert done.exit_code == 0, (done.output, done.exception)
    for name in ("jsonl", "queue.jsonl"):
        assert (tmp_path / f"all.{name}").read_bytes() == (tmp_path / f"one.{name}").read_bytes()


def prefers_first(body):
    """Reply A where the answer shown first is alphabetically earlier."""
    text = body["messages"][0]["content"]
    first, second = (text.split(f"Answer {name}:\n")[1].split("\n\n")[0] for name in "AB")
    return 200, {}, completion("A" if first < second else "B")


def test_preferences_of_merged_parts_are_those_of_one_process_and_asked_for_once(source, tmp_path):
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    unordered = tmp_path / "unordered.jsonl"
    unordered.write_text("".join(json.dumps(row | {"chosen_is_better": None}) + "\n" for row in rows))
    distinct = len({(row["prompt"], row["chosen"], row["rejected"]) for row in rows})
    asked = []

    def reply(body, _):
        asked.append(body)
        return prefers_first(body)

    with serving(reply) as server:
        options = [*JUDGE, "--helpfulness-judge", f"pairwise:m@{server.url}"]
        written = [tmp_path / "one.jsonl", tmp_path / "all.jsonl"]
        for _ in range(2):
            done = run(unordered, *options, "-o", written[0], "--cache", tmp_path / "one.sqlite")
            assert done.exit_code == 0, (done.output, done.exception)
            # Each distinct pair in both orders, and nothing in the second run.
            assert len(asked) == 2 * distinct
        merging, judged = [], []
        for number in (1, 2):
            part = tmp_path / f"part-{number}.sqlite"
            merging += ["--merge", part]
            judged.append(
                json.loads(run(unordered, *options, "--shard", f"{number}/2", "--cache", part, "--json").stdout)
            )
        assert len(asked) == 4 * distinct
        assert sum(each["pairs"] for each in judged) == judged[0]["all_pairs"] == 70
        assert min(each["pairs"] for each in judged) > 15
        done = run(unordered, *options, "-o", written[1], "--cache", tmp_path / "all.sqlite", *merging)
        assert done.exit_code == 0, (done.output, done.exception)
        assert len(asked) == 4 * distinct
    assert written[0].read_bytes() == written[1].read_bytes()


def test_every_exchange_is_in_exactly_one_part():
    exchanges = [Exchange(f"p{a}", f"r{b}") for a, b in itertools.product(range(40), repeat=2)]
    parts = [Shard(number, 7) for number in range(1, 8)]
    sizes = [sum(is_in(part, one.prompt, one.answer) for one in exchanges) for part in parts]
    assert all(sum(is_in(part, one.prompt, one.answer) for part in parts) == 1 for one in exchanges)
    assert sum(sizes) == 1600
    assert min(sizes) > 0.8 * 1600 / 7


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "1/3/5", "-1/3", "²/3"])
def test_other_parts_are_refused(source, tmp_path, text):
    done = run(source, *JUDGE, "--shard", text, "--cache", tmp_path / "part")
    assert isinstance(done.exception, BfpoError)
    assert "write the part and the number of parts" in str(done.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*JUDGE, "--shard", "1/2", "-o", "out.jsonl"), "--shard only judges: leave out --output"),
        ((*JUDGE, "--shard", "1/2", "--merge", "x"), "leave out --merge"),
        (("--shard", "1/2"), "name a judge with --judge"),
        ((*JUDGE, "-o", "out.jsonl", "--merge", "missing.sqlite"), "missing.sqlite: there is no such cache"),
    ],
)
def test_what_a_part_does_not_read_is_refused(source, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    done = run(source, *options, "--cache", "cache.sqlite")
    assert isinstance(done.exception, BfpoError)
    assert message in str(done.exception)
    assert not (tmp_path / "out.jsonl").exists()
