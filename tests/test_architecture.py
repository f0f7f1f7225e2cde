"""The rooms of docs/architecture.md: which there are, and that each imports only from rooms above it."""

import ast
import re
from importlib.util import resolve_name
from pathlib import Path

import pytest

import bfpo

PACKAGE = Path(bfpo.__file__).parent
PAGE = Path(__file__).parents[1] / "docs/architecture.md"
# From the top down: folders ("engine") and files ("quickstart"). The next table has what belongs to no room.
ROWS = re.findall(r"^\| `(\S+)` \|", PAGE.read_text("utf-8").partition("belong to no room")[0], re.MULTILINE)
ROOMS = [row.strip("/").removesuffix(".py") for row in ROWS]
# The package's public names and its command come from every room.
ENTRANCES = ("__init__.py", "__main__.py")
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).as_posix() not in ENTRANCES)


def room_of(module):
    """The room of a module's dotted name, or None for the files that every room may use and for other packages."""
    package, _, rest = module.partition(".")
    name = rest.split(".")[0]
    return name if package == "bfpo" and name in ROOMS else None


def imported(source, package):
    """The dotted names that a file imports, within functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imports_from_below(source, package):
    """The imports of rooms below the file's own; a file outside the rooms lies above all of them."""
    own = room_of(package)
    level = ROOMS.index(own) if own else -1
    return [name for name in imported(source, package) if (room := room_of(name)) and ROOMS.index(room) > level]


def package_of(path):
    """The package that relative imports start from; for a file that is a room, the room itself."""
    at = path.relative_to(PACKAGE)
    return f"bfpo.{at.stem}" if at.as_posix() in ROWS else ".".join(("bfpo", *at.parts[:-1]))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_room_imports_only_from_rooms_above_it(path):
    assert imports_from_below(path.read_text("utf-8"), package_of(path)) == []


@pytest.mark.parametrize(
    ("package", "source", "noticed"),
    [
        ("bfpo.engine", "import bfpo.objectives.bfpo\nimport bfpo.training.run", ["bfpo.training.run"]),
        ("bfpo.judges", "def check():\n    from bfpo.safehelp import scores", ["bfpo.safehelp.scores"]),
        ("bfpo.judges", "from ..training import run", ["bfpo.training.run"]),
        ("bfpo.statistics", "from bfpo import cli", ["bfpo.cli"]),
        ("bfpo", "from bfpo.statistics import intervals", ["bfpo.statistics.intervals"]),
        ("bfpo.cli", "from bfpo.quickstart import Scale\nfrom bfpo.errors import BfpoError\nimport torch", []),
    ],
)
def test_imports_from_below_are_noticed(package, source, noticed):
    assert imports_from_below(source, package) == noticed


def test_every_folder_with_code_is_in_the_table_and_every_room_exists():
    inside = [path.relative_to(PACKAGE) for path in FILES if path.parent != PACKAGE and path.name != "__init__.py"]
    assert {f"{path.parts[0]}/" for path in inside} == {row for row in ROWS if row.endswith("/")}
    assert [row for row in ROWS if not (PACKAGE / row).exists()] == []
