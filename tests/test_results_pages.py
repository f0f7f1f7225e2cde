"""Every page of results asks one question, answers it in bold, and ends with the command that repeats it."""

import re
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PAGES = sorted(path for path in RESULTS.glob("*.md") if path.name != "README.md")
COMMAND = re.compile(r"Made by `(?:make|python) [^`]+`|^    bfpo \S", re.MULTILINE)


def paragraphs(text):
    return text.strip().split("\n\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_asks_answers_and_says_how_to_run_it_again(page):
    text = page.read_text(encoding="utf-8").strip()
    title, question, answer, *rest = paragraphs(text)
    assert re.fullmatch(r"# \S[^\n]*", title)
    assert question.endswith("?")
    assert question.count("?") == 1
    assert re.fullmatch(r"\*\*[^*]+[.]\*\*", answer), answer
    assert re.search(r"\d", answer) or answer.startswith("**Not finished")
    end = text.rpartition("\n## To run it again\n")[2] if "\n## To run it again\n" in text else rest[-1]
    assert COMMAND.search(end), end
    assert "\n## " not in end
    assert not COMMAND.search(text.removesuffix(end)), "the command is told twice"


def test_the_table_lists_every_page_once():
    rows = [line for line in (RESULTS / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    listed = [name for row in rows for name in re.findall(r"\]\(([\w-]+\.md)\)", row)]
    assert len(listed) == len(set(listed))
    # A page that is listed and not there breaks the test of links.
    assert {page.name for page in PAGES} <= set(listed)
