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
    if page.name not in ("cli.md", "api.md")  # written from the code itself
]


def commands(text):
    """Commands in code blocks, without the explanation after two spaces or a hash, and in inline code."""
    text = re.sub(r"\\\n\s*", "", text)
    blocks = re.findall(r"^(?: {4})?(?:\$ )?(bfpo .+)$", text, flags=re.MULTILINE)
    found = [re.split(r"\s{2,}|\s#", line)[0] for line in blocks] + re.findall(r"`(bfpo [^`\n]+)`", text)
    found = [re.sub(r"[\[\]]", "", line) for line in found]
    return [line for line in dict.fromkeys(found) if not re.search(r"[|{]|->| \.\.\. ", line)]


COMMANDS = {line: page for page in PAGES for line in commands(page.read_text(encoding="utf-8"))}


def parse(line):
    """Parse a command as the program does, without running it; a mention in a text may leave out arguments."""
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
            if type(error).__name__ != "MissingParameter":
                raise


def test_the_reader_of_pages_finds_commands():
    text = "Run `bfpo report A`:\n\n    bfpo train a.yaml --plan   # plans\n    bfpo judge \\\n        list    all\n"
    assert commands(text) == ["bfpo train a.yaml --plan", "bfpo judge list", "bfpo report A"]
    assert len(COMMANDS) > 50
    with pytest.raises(Exception, match="No such option: --splits"):
        parse("bfpo evaluate m --splits test")
    with pytest.raises(Exception, match="unable to parse string as an integer"):
        parse("bfpo evaluate m --limit many")
    with pytest.raises(KeyError, match="evaluat"):
        parse("bfpo evaluat m")


@pytest.mark.parametrize("line", COMMANDS, ids=str)
def test_documented_options_exist(line):
    parse(line)


class ReachedError(Exception):
    """The options were read, and a suite is being loaded."""


EVALUATIONS = [line for line in COMMANDS if line.startswith("bfpo evaluate ")]


@pytest.mark.parametrize("line", EVALUATIONS)
def test_a_documented_evaluation_has_no_option_that_its_suite_does_not_read(line, monkeypatch):
    def reached(*_):
        raise ReachedError

    read = suites.read_suite
    monkeypatch.setattr(suites, "read_suite", lambda name: read(name if name == "paper" else "core"))
    monkeypatch.setattr(suites, "_chosen", reached)
    monkeypatch.setattr(suites, "microworld", reached)
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    assert isinstance(done.exception, ReachedError) or done.exit_code == 0, done.exception


def test_an_unread_option_would_be_noticed(monkeypatch):
    with pytest.raises(AssertionError, match="--split: only the microworld reads it"):
        test_a_documented_evaluation_has_no_option_that_its_suite_does_not_read(
            "bfpo evaluate runs/again --split validation", monkeypatch
        )
