"""``bfpo train --bound``: the whole search as a user starts it, and what is refused before anything is trained."""

import json

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError, RunError
from bfpo.microworld.grammar import requests
from training.tiny_runs import write_material, write_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, which never answers like the microworld, pairs, and harmful questions of the microworld."""
    folder = tmp_path_factory.mktemp("bound-command")
    write_material(folder)
    harmful = [request.text for request in requests("test") if request.kind == "harmful"][:30]
    (folder / "harmful.txt").write_text("\n".join(harmful) + "\n")
    return folder


def bfpo(path, *arguments):
    return CliRunner().invoke(app, ["train", str(path), *map(str, arguments)], catch_exceptions=False)


def test_the_model_and_the_statement_are_printed_and_a_search_is_resumed_on_request(folder):
    options = [
        "--bound", "attack_success<=.3", "--bound-data", folder / "harmful.txt", "--bound-judge", "microworld-oracle",
        "--bound-corners", "0.2,1", "--max-new-tokens", "4",
    ]  # fmt: skip
    path = write_recipe(folder, "kept")
    done = bfpo(path, *options)
    assert done.exit_code == 0, done.output
    assert f"The model at b3 0.200 is in {folder / 'kept' / 'corner-low'}. On 30 held-out prompts, 0.00%" in done.output
    with pytest.raises(BfpoError, match="continue it with --resume"):
        bfpo(path, *options)
    again = json.loads(bfpo(path, *options, "--resume", "--json").stdout.splitlines()[-1])
    assert (again["folder"], again["b3"]) == (str(folder / "kept" / "corner-low"), pytest.approx(0.2))


def test_a_bound_that_is_out_of_reach_fails(folder):
    """The judge calls every second answer unsafe."""
    with pytest.raises(RunError, match=r"<= 0\.2 can't be met even at the largest b3: b3 2\.000 \(dial\): 0\.[3-7]"):
        bfpo(
            write_recipe(folder, "never"), "--bound", "attack_success<=.2", "--bound-data", folder / "harmful.txt",
            "--bound-judge", "microworld-oracle:0.5,0.5", "--max-new-tokens", "4",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bound", "attack_success<=.1"], "--bound needs --bound-data FILE, harmful prompts, and --bound-judge"),
        (["--bound-corners", "1,2"], "--bound-corners: only works together with --bound"),
        (["--max-new-tokens", "8"], "--max-new-tokens: only works together with --bound"),
        (["--judge-errors", "9/10,9/10"], "--judge-errors: only works together with --bound"),
        (["--bound", "attack_success<=.1", "--plan"], "--plan describes one run, and --bound trains several"),
        (["{bound}", "attack_success<=.1", "--bound-corners", "1"], "--bound-corners 1: write LOW,HIGH, such as 0.1,2"),
        (["{bound}", "attack_success<=.1", "--bound-corners", "2,1"], "positive and ascending"),
        (["{bound}", "attack_success<=.1", "--bound-corners", "0.1,inf"], "finite and above 1"),
        (["{bound}", "attack_success<=.1"], "can't be shown by 30 prompts: .* give at least 35 different ones"),
        (["{bound}", "attack_success<=2"], r"write attack_success<=X with X in \(0, 1\)"),
        (["{bound}", "attack_success<=.2", "--bound-judge", "keywords"], "gives no verdict on an answer's safety"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused_before_training(folder, options, message):
    given = ["--bound-data", str(folder / "harmful.txt"), "--bound-judge", "microworld-oracle"]
    if options[0] == "{bound}":
        options = [*given, "--bound", *options[1:]]
    with pytest.raises(BfpoError, match=message):
        bfpo(write_recipe(folder, "refused"), *options)
    assert not (folder / "refused").exists()
