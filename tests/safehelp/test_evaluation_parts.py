"""Parts of an evaluation in several processes: merged, they are byte for byte what one process makes."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError, RunError
from bfpo.generation.protocol import Completion, Decoding, Generator, ModelIdentity
from bfpo.judges.keywords import KeywordJudge
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.suites import Suite
from bfpo.shards import Shard

OPTIONS = ("microworld", "--per-kind", "12", "--batch-size", "8", "--seed", "3", "--max-new-tokens", "12")
FILES = ("generations.jsonl", "likelihoods.jsonl", "scores.json")


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def merging(folders):
    return [option for folder in folders for option in ("--merge", folder)]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The folder of one process, and those of three parts, made in real processes; one part was made twice."""
    root = tmp_path_factory.mktemp("parts")
    assert run(*OPTIONS, "-o", root / "one").exit_code == 0
    folders = [root / f"part{number}" for number in (1, 2, 3)]
    for number, folder in enumerate(folders, 1):
        if number == 2:
            command = [sys.executable, "-m", "bfpo", "evaluate", *OPTIONS, "--shard", "2/3", "-o", str(folder)]
            environment = os.environ | {"BFPO_CACHE": str(root / "other")}
            subprocess.run(command, check=True, capture_output=True, env=environment)
        else:
            done = run(*OPTIONS, "--shard", f"{number}/3", "-o", folder, "--json")
            assert done.exit_code == 0, (done.output, done.exception)
            assert json.loads(done.stdout)["shard"] == f"{number}/3"
    return root / "one", folders


def test_merged_parts_are_the_run_of_one_process(parts, tmp_path, monkeypatch):
    one, folders = parts
    counts = [len((folder / "generations.jsonl").read_text().splitlines()) for folder in folders]
    assert min(counts) >= 8
    assert sum(counts) == 36
    monkeypatch.setattr("bfpo.generation.local_generator.LocalGenerator.generate", None)  # nothing is made again
    monkeypatch.setattr("bfpo.generation.local_generator.score_choices", lambda *_, done, **__: iter(()))
    done = run(*OPTIONS, "-o", tmp_path / "all", *merging(reversed(folders)))
    assert done.exit_code == 0, (done.output, done.exception)
    for name in FILES:
        assert (tmp_path / "all" / name).read_bytes() == (one / name).read_bytes()
    merged, whole = Evaluation.load(tmp_path / "all").header, Evaluation.load(one).header
    times = {"started": "", "seconds": 0.0, "command": ""}
    assert replace(merged, **times) == replace(whole, **times)


def test_a_part_is_no_evaluation(parts):
    _, folders = parts
    assert not (folders[0] / "scores.json").exists()
    with pytest.raises(BfpoError, match=r"is part 1/3 of an evaluation; merge all parts"):
        Evaluation.load(folders[0])
    assert (folders[0] / "likelihoods.jsonl").stat().st_size
    assert not (folders[1] / "likelihoods.jsonl").exists()


def test_what_are_not_the_parts_of_this_run_is_refused(parts, tmp_path):
    one, (first, second, third) = parts
    for folders, message in [
        ((first, second), "got the parts 1/3, 2/3; name every part of one division once"),
        ((first, second, second, third), "name every part of one division once"),
        ((one, second, third), "is not part of an evaluation"),
        ((tmp_path / "none",), "is not part of an evaluation"),
    ]:
        refused = run(*OPTIONS, "-o", tmp_path / "all", *merging(folders))
        assert message in str(refused.exception), (refused.output, refused.exception)
    assert not (tmp_path / "all").exists()
    other = run(*OPTIONS, "--temperature", "0.3", "-o", tmp_path / "other", *merging((first, second, third)))
    assert "contains a part of a run with another decoding (temperature 0.7, now 0.3)" in str(other.exception)
    header = json.loads((second / "run.json").read_text())
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "run.json").write_text(json.dumps(header | {"finished": False}))
    unfinished = run(*OPTIONS, "-o", tmp_path / "more", *merging((first, torn, third)))
    assert "part 2/3 is unfinished; repeat its command" in str(unfinished.exception)
    mixed = run(*OPTIONS, "-o", second)
    assert "contains part 2/3 of this run, and this is the whole" in str(mixed.exception)


@pytest.mark.parametrize(
    "options",
    [("--shard", "1/2", "--merge", "x"), ("--shard", "1/2", "--temperature", ".1", "--temperature", ".2"),
     ("--shard", "1/2", "--require", "helpful>=.5")],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(options):
    refused = run(*OPTIONS, *options)
    assert str(refused.exception).startswith("--shard and --merge: take one of them")


@pytest.mark.parametrize("of", [1, 2, 7])
def test_every_place_is_in_exactly_one_part(of):
    shards = [Shard.parse(f"{number}/{of}") for number in range(1, of + 1)]
    assert [sum(shard.has(place) for shard in shards) for place in range(20)] == [1] * 20


class Forgetful(Generator):
    """Answers the first eight prompts only, as a model does whose context the others fill."""

    identity = ModelIdentity(path="forgetful", digest="v1")

    def generate(self, batch, decoding):
        return [
            Completion("Certainly.", False) if int(request.prompt) < 8 else Completion("", False, failure="no room")
            for request in batch
        ]


def test_a_part_without_an_answer_is_still_a_part(tmp_path):
    """One process goes on where all prompts of a batch are too long, and so do the parts that are merged."""
    prompts = [PromptItem("t", str(at), "harmful", None, None, str(at), str(at)) for at in range(16)]
    settings = {"judges": [KeywordJudge()], "decoding": Decoding(batch_size=8)}
    suite = Suite("own", prompts, [])
    whole = evaluate(Forgetful(), suite, folder=tmp_path / "whole", **settings)
    parts = [tmp_path / f"part{number}" for number in (1, 2)]
    for number, folder in enumerate(parts, 1):
        evaluate(Forgetful(), suite, folder=folder, shard=Shard(number, 2), **settings)
    merged = evaluate(Forgetful(), suite, folder=tmp_path / "merged", merge=parts, **settings)
    assert merged.generations == whole.generations
    assert merged.header.counts["unanswered"] == 8
    with pytest.raises(RunError, match="none of 8 prompts got an answer"):
        evaluate(Forgetful(), Suite("own", prompts[8:], []), **settings)
