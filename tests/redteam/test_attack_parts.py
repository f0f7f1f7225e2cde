"""``bfpo redteam`` in parts: turn by turn, merged parts are byte for byte what one process makes."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.generation.local_generator import LocalGenerator
from redteam.test_running import microworld_pairs

OPTIONS = (
    "microworld", "--judge", "microworld-oracle", "--attacks", 8, "--turns", 2, "--style", "plain",
    "--held-out-style", "spelling", "--max-new-tokens", 40, "--temperature", 1.5, "--batch-size", 8,
)  # fmt: skip


def run(*arguments):
    return CliRunner().invoke(app, ["redteam", *map(str, arguments)])


def made(*arguments):
    done = run(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def merging(parts):
    return [option for part in parts for option in ("--merge", part)]


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    path = tmp_path_factory.mktemp("bank") / "bank.jsonl"
    path.write_text("".join(json.dumps(vars(pair)) + "\n" for pair in microworld_pairs(30)))
    return path


@pytest.fixture(scope="module")
def parts(bank, tmp_path_factory):
    """The folders of three parts after both turns, and what their commands printed, of which one was in vain."""
    root = tmp_path_factory.mktemp("parts")
    folders = [root / f"part{number}" for number in (1, 2, 3)]

    def part(number, *more):
        given = ("--prompts", bank, "--shard", f"{number}/3", "-o", folders[number - 1], "--json", *more)
        return json.loads(made(*OPTIONS, *given))

    printed = [part(number) for number in (1, 2, 3)]
    printed += [part(number, *merging(folders)) for number in (1, 1, 3, 2)]
    printed += [part(3, *merging(folders))]
    return folders, printed


def test_merged_parts_are_the_run_of_one_process(bank, parts, tmp_path, monkeypatch):
    folders, printed = parts
    assert [(one["turn"], one["is_last"]) for one in printed] == [(1, False)] * 3 + [(2, True)] * 4 + [(None, True)]
    # 4 attacks with their twins and 4 answers to each are 4 batches a turn; a repeated command answers nothing anew.
    assert [one["answers"] for one in printed] == [16, 8, 8, 16, 16, 8, 8, 0]
    one = json.loads(made(*OPTIONS, "--prompts", bank, "-o", tmp_path / "one", "--json"))
    monkeypatch.setattr(LocalGenerator, "generate", None)  # nothing is asked again
    merge = ("--prompts", bank, *merging(folders[::-1]))
    assert json.loads(made(*OPTIONS, *merge, "-o", tmp_path / "all", "--json")) == one
    assert one["attacks"] == {"plain": 8, "spelling": 4}
    for name in ("groups.jsonl", "redteam.json", "turn-0/generations.jsonl", "turn-1/generations.jsonl",
                 "held-out/generations.jsonl"):  # fmt: skip
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


@pytest.mark.parametrize("has_others", [True, False])
def test_held_out_styles_that_a_part_was_interrupted_in_are_made_up_for(bank, parts, tmp_path, has_others):
    folders, _ = parts
    mine = tmp_path / "part2"
    shutil.copytree(folders[1], mine)
    kept = (mine / "held-out" / "generations.jsonl").read_bytes()
    shutil.rmtree(mine / "held-out")
    others = merging([folders[0], mine, folders[2]]) if has_others else ()
    run(*OPTIONS, "--prompts", bank, "--shard", "2/3", "-o", mine, *others)
    assert (mine / "held-out" / "generations.jsonl").read_bytes() == kept


def test_more_parts_than_batches_leave_some_empty(bank, tmp_path):
    few = [*OPTIONS[:-1], 256, "--prompts", bank, "--turns", 1, "--attacks", 4]
    folders = [tmp_path / f"part{number}" for number in (1, 2)]
    told = [made(*few, "--shard", f"{number}/2", "-o", folder) for number, folder in enumerate(folders, 1)]
    assert "Part 2/2 of turn 1 of 1" in told[1]
    assert "0 answers. Once all parts are\nthere, merge them: leave out --shard" in told[1]
    made(*few, "-o", tmp_path / "all", *merging(folders))
    made(*few, "-o", tmp_path / "one")
    assert (tmp_path / "all/groups.jsonl").read_bytes() == (tmp_path / "one/groups.jsonl").read_bytes()


def test_a_turn_that_is_not_finished_everywhere_is_named(bank, parts, tmp_path):
    folders, _ = parts
    given = ("--prompts", bank)
    alone = run(*OPTIONS, *given, "--shard", "1/3", "-o", folders[0])
    assert isinstance(alone.exception, BfpoError)
    assert "turn 1 of part 1/3 is finished, and the next one depends on what all parts found" in str(alone.exception)
    missing = run(*OPTIONS, *given, *merging([*folders[:2], tmp_path / "none"]), "-o", tmp_path / "all")
    assert f"{tmp_path / 'none'}: turn-0 isn't finished there; repeat the commands of all parts" in str(
        missing.exception
    )
    two = run(*OPTIONS, *given, *merging(folders[:2]), "-o", tmp_path / "all")
    assert "got the parts 1/3, 2/3; name every part of one division once" in str(two.exception)
    two = run(*OPTIONS, *given, "--shard", "1/3", *merging(folders[:2]), "-o", folders[0])
    assert "got the parts 1/3, 2/3; name every part of one division once" in str(two.exception)
    other = run(*OPTIONS, *given, "--seed", 1, *merging(folders), "-o", tmp_path / "other")
    assert "contains a part of a run with other prompts" in str(other.exception)
    other = run(*OPTIONS, *given, "--seed", 1, *merging(folders), "-o", tmp_path / "all")
    assert "contains red teaming with other settings" in str(other.exception)
    assert not (tmp_path / "all/groups.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shard", "1/2", "--rounds", 2), "--shard and --merge: leave out --rounds"),
        (("--merge", "x", "--attacker", "microworld"), "--attacker, which every part would ask anew"),
        (("--shard", "1/2", "--plan"), "and --plan"),
        (("--shard", "1/2", "--evaluation", "pyproject.toml"), "--evaluation: "),
        (("--shard", "3/2"), "--shard 3/2: write the part and the number of parts"),
    ],
)
def test_what_parts_do_not_do_is_refused(bank, tmp_path, options, message):
    prompts = tmp_path / "known.txt"
    prompts.write_text("a prompt\n")
    given = [prompts if one == "pyproject.toml" else one for one in options]
    refused = run(*OPTIONS, "--prompts", bank, "-o", tmp_path / "run", *given)
    assert isinstance(refused.exception, BfpoError)
    assert message in str(refused.exception)
    assert not (tmp_path / "run").exists()
