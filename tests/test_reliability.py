"""Every promise of docs/reliability.md names tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"


def functions_of(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}


def test_every_promise_has_tests_that_exist():
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ") and "| test |" not in line]
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert (ROOT / file).is_file(), file
            assert test in functions_of(ROOT / file), f"{file}::{test}"
