"""Tests of the command line's frame: exit codes, start-up without heavy imports, packaged recipes."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from bfpo import __version__
from bfpo.cli.main import app
from support import warm


def bfpo(*arguments):
    command = [sys.executable, "-m", "bfpo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_version_and_help():
    assert bfpo("--version").stdout == f"bfpo {__version__}\n"
    assert "train" in bfpo("--help").stdout


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['bfpo', '--help']\n"
        "import bfpo.cli.main\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'matplotlib', 'peft', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "no-such-recipe.yaml"], "no such recipe"),
        (["recipe", "show", "paper-bpfo"], "did you mean 'paper-bfpo'"),
        (["recipe", "copy", "nothing"], "no packaged recipe"),
    ],
)
def test_bad_input_exits_with_two_and_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = warm.bfpo(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        "train gone.yaml",
        "train here.txt --bound attack_success<=.1 --bound-data gone.txt --bound-judge keywords",
        "label gone.jsonl --judge keywords -o out.jsonl",
        "label here.txt --judge keywords -o out.jsonl --answers gone.jsonl",
        "label --fit-preference gone.jsonl",
        "label gone/from/here --judge keywords --shard 1/2",
        "evaluate gone/from/here",
        "evaluate gone --answers gone.jsonl",
        "evaluate microworld --judge gone.yaml",
        "redteam ./gone --judge keywords -o out",
        "redteam microworld --judge replay:gone.jsonl -o out",
        "redteam microworld --judge keywords -o out --rounds 1 --recipe gone.yaml",
        "redteam microworld --judge keywords --prompts gone.jsonl -o out",
    ],
)
def test_an_input_that_does_not_exist_is_found_before_heavy_imports(arguments, tmp_path):
    (tmp_path / "here.txt").touch()
    code = (
        "import sys\nfrom bfpo.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n"
        "    print(end.code, sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout == "2 []\n", done.stderr
    assert "gone" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["here.txt"]


def test_wrong_usage_exits_with_two():
    assert bfpo("train").returncode == 2
    assert bfpo("trian").returncode == 2


def test_recipes_are_listed_shown_and_copied_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    listed = runner.invoke(app, ["recipe", "list"]).stdout
    names = [line.split()[0] for line in listed.splitlines()]
    assert {"paper-sft", "paper-bfpo", "lora-small", "dpo", "accelerate/fsdp2", "accelerate/zero3"} <= set(names)
    for name in names:
        shown = runner.invoke(app, ["recipe", "show", name]).stdout
        assert runner.invoke(app, ["recipe", "copy", name]).exit_code == 0
        assert (tmp_path / f"{name.removeprefix('accelerate/')}.yaml").read_text() == shown
    assert warm.bfpo("recipe", "copy", "dpo").returncode == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_under_the_output_is_one_line(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    with open("/dev/full", "w") as full:  # noqa: PLW1514
        done = subprocess.run(
            [sys.executable, "-m", "bfpo", "data", "check", str(path), "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("failed: No space left on device; check permissions and free space")
