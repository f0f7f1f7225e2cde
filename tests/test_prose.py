"""Spelling and form of what people read: American spelling, help texts that are sentences, links that resolve."""

import ast
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer

from bfpo.cli.main import app

ROOT = Path(__file__).parents[1]
TEXTS = sorted(
    path
    for pattern in ("*.md", "*.cff", "docs/**/*", "src/**/*", "studies/**/*", "benchmarks/**/*", "tests/**/*")
    for path in ROOT.glob(pattern)
    if path.suffix in (".md", ".py", ".jinja", ".css", ".js", ".yaml", ".html", ".cff") and path != Path(__file__)
)
BRITISH = re.compile(
    r"colour|behaviour|favour|honour|neighbour|labell(?:ed|ing)|judgement|modell(?:ed|ing)|cancell(?:ed|ing)|licence|"
    r"artefact|analys(?:e[ds]?|ing)\b|catalogue|centre|grey|whilst|programme\b|"
    r"(?:token|normal|initial|optim|minim|maxim|summar|recogn|organ|serial|general|regular|random|util|priorit|"
    r"parametr|quant|special|categor|standard|synchron|stabil|memor|penal|emphas|character|real|rational|visual)"
    r"is(?:e[drs]?|ing|ation|ations)\b",
    re.IGNORECASE,
)
# Names with a fixed spelling: a column and a header field of existing files, aria-labelledby of HTML, asyncio's error,
# and the microworld's words, on which its packaged model was trained.
NOT_OURS = re.compile(
    r"labell(?:ed_?by|ing_(?:judge|model|prompt))|CancelledError|"
    r"my neighbour's|grey remote|(?:bright|the) colours|summarise \||colour \|"
)


def spelled_british(text: str) -> list[str]:
    return BRITISH.findall(NOT_OURS.sub("", text))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_spelling_is_american(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [f"{number}: {line.strip()}" for number, line in enumerate(lines, 1) if spelled_british(line)] == []


def test_the_spelling_check_notices():
    assert spelled_british("Labelled colours, tokenised")
    assert not spelled_british("labelled_by is a column; raised, promised, otherwise, precise; an exercise; licensed")


def help_texts():
    def walk(name, command):
        yield name, command.help
        for parameter in command.params:
            yield f"{name} {parameter.name}", getattr(parameter, "help", None)
        for part, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {part}", inner)

    return list(walk("bfpo", typer.main.get_command(app)))


@pytest.mark.parametrize(("name", "text"), help_texts(), ids=lambda value: None)
def test_help_is_a_sentence_or_a_noun_phrase(name, text):
    if name.endswith((" help", " version")) and text is None:
        return
    assert text, f"{name} has no help"
    assert not re.match(r"(Of|Before|With|From|For|By|As|In|To) ", text.strip()), f"{name}: {text}"
    assert text.strip()[-1] in ".)", f"{name}: {text}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT / "src"))
)
def test_module_docstrings_name_what_is_in_the_file(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path} has no docstring"
    first_line = docstring.splitlines()[0]
    assert not re.match(r"(Of|How|What|From|Where|Which|Whether|When|Why|Who|With|To)\b", first_line), first_line


def links():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    pattern = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
    for page in sorted(pages):
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in pattern.findall(prose):
            if not re.match(r"[a-z]+:", target):
                yield page, target


@pytest.mark.parametrize(("page", "target"), list(links()), ids=lambda value: None)
def test_relative_links_resolve(page, target):
    assert (page.parent / unquote(target)).exists(), f"{page.relative_to(ROOT)} links to {target}, which is not there"
