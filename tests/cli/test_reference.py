"""Tests that the reference pages are up to date."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def written():
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {"cli.md": module.command_line(), "api.md": module.python(), "recipe.md": module.recipe_keys()}


@pytest.mark.parametrize("name", ["cli.md", "api.md", "recipe.md"])
def test_the_reference_is_up_to_date(name):
    assert (DOCS / name).read_text(encoding="utf-8") == written()[name], "run 'make reference'"
