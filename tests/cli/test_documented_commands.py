"""Every command in the README and the docs has options that exist, and ``bfpo evaluate`` reads all of them."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.safehelp import suites

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if page.name not in ("cli.md", "api.md", "recipe.md")  # written from the code itself
]


def commands(text):
    """Commands in code blocks, without the explanation after two spaces or a hash, and those mentioned in texts."""
    text = re.sub(r"\\\n\s*", "", text)
    fenced = "".join(re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))
    blocks = re.findall(r"^ {4}(bfpo .+)$", text, flags=re.MULTILINE) + re.findall(
        r"^(bfpo .+)$", fenced, flags=re.MULTILINE
    )
    blocks = [re.split(r"\s{2,}|\s#", line)[0] for line in blocks]
    return [line for line in blocks if not re.search(r"->|\|", line)], [
        re.sub(r"[\[\]]", "", line) for line in re.findall(r"`(bfpo [^`|{\n]+)`", text) if " ... " not in line
    ]


READ = [commands(page.read_text(encoding="utf-8")) for page in PAGES]
BLOCKS = list(dict.fromkeys(line for blocks, _ in READ for line in blocks))
COMMANDS = list(dict.fromkeys(BLOCKS + [line for _, mentions in READ for line in mentions]))


def parse(line):
    """Parse a command as the program does, without running it, and return the name of what would run.

    Mentions may leave out arguments and values.
    """
    root = command = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    rest = list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        command = command.commands[rest.pop(0)]
    if rest and not hasattr(command, "commands"):
        command.callback = lambda **_: None
        try:
            root.main(args=words, prog_name="bfpo", standalone_mode=False)
        except Exception as error:
            if type(error).__name__ not in ("MissingParameter", "BadOptionUsage"):
                raise
    return command.name


def test_the_reader_of_pages_finds_commands():
    text = "Run `bfpo report A`:\n\n    bfpo train a.yaml --plan   # plans\n    bfpo judge \\\n        list    all\n"
    text += "```text\nbfpo ref build a\n```\nbfpo is a package.\n"
    assert commands(text) == (["bfpo train a.yaml --plan", "bfpo judge list", "bfpo ref build a"], ["bfpo report A"])
    assert len(BLOCKS) > 30
    assert len(COMMANDS) > 50
    with pytest.raises(Exception, match="No such option: --splits"):
        parse("bfpo evaluate m --splits test")
    with pytest.raises(Exception, match="unable to parse string as an integer"):
        parse("bfpo evaluate m --limit many")
    with pytest.raises(KeyError, match="evaluat"):
        parse("bfpo evaluat m")


@pytest.mark.parametrize("line", COMMANDS, ids=str)
def test_documented_options_exist(line):
    assert parse(line) in line.split()


class ReachedError(Exception):
    """The options were read, and a suite is being loaded."""


EVALUATIONS = [line for line in BLOCKS if line.startswith("bfpo evaluate ")]


@pytest.mark.parametrize("line", EVALUATIONS)
def test_a_documented_evaluation_has_no_option_that_its_suite_does_not_read(line, monkeypatch):
    def reached(*_):
        raise ReachedError

    read = suites.read_suite
    monkeypatch.setattr(suites, "read_suite", lambda name: read(name if name == "paper" else "core"))
    monkeypatch.setattr(suites, "_chosen", reached)
    monkeypatch.setattr(suites, "_microworld", reached)
    # The files that the documents name are the reader's.
    monkeypatch.setattr("bfpo.cli.evaluate._check_inputs", lambda *_: None)
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    assert isinstance(done.exception, ReachedError) or done.exit_code == 0, done.exception


def test_an_unread_option_would_be_noticed(monkeypatch):
    with pytest.raises(AssertionError, match="--split: only the microworld reads it"):
        test_a_documented_evaluation_has_no_option_that_its_suite_does_not_read(
            "bfpo evaluate runs/again --split validation", monkeypatch
        )
