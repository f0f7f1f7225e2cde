"""The public API: every name is there, is documented with an example, and ``import bfpo`` stays light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bfpo

ROOT = Path(__file__).parents[1]


def test_names_are_the_same_for_people_type_checkers_and_at_run_time():
    tree = ast.parse((ROOT / "src/bfpo/__init__.py").read_text(encoding="utf-8"))
    typed = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name: node.module for node in typed.body for alias in node.names}
    assert imported == bfpo._HOME
    assert bfpo.__all__ == sorted(imported)
    for name, module in imported.items():
        assert getattr(bfpo, name) is getattr(sys.modules[module], name)


def test_import_is_light():
    code = (
        "import sys, bfpo; dir(bfpo); sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'trainer'"):
        _ = bfpo.trainer


def test_every_public_name_has_an_example():
    code = (ROOT / "docs/api_examples.py").read_text(encoding="utf-8")
    assert [name for name in bfpo.__all__ if not re.search(rf"\bbfpo\.{name}\b", code)] == []


def test_examples_run(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "docs/api_examples.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_how_to_guides_import_public_names_only():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("how-to/*.md"), *(ROOT / "docs").glob("tutorials/*.py")]
    pages += [ROOT / "docs/errors.md", ROOT / "docs/api_examples.py", ROOT / "docs/from-trl.md"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        code = text if page.suffix == ".py" else "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "bfpo":
                assert node.module == "bfpo", f"{page.name}: from {node.module} import ..."
                assert {alias.name for alias in node.names} <= set(bfpo.__all__), page.name
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("bfpo.") for alias in node.names), page.name
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "bfpo":
                assert node.attr in bfpo.__all__, f"{page.name}: bfpo.{node.attr}"
