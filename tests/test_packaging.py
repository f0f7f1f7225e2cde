"""The package as others get it: declared imports, pinned versions, contents of wheel and sdist, any platform."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
UNSHIPPED = ("tests", "studies", "benchmarks")
NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv*", "runs", "build", "dist", "site", "__pycache__", "*.egg-info", ".*_cache"
)
PLATFORM_ONLY = {"fcntl", "grp", "msvcrt", "pwd", "resource", "termios", "winreg"}


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")


def imports(folder, optional=True):
    """Every absolute import below a folder (but those that may fail, unless optional): top-level name and file."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        tried = [node for node in nodes if isinstance(node, ast.Try) and "ImportError" in map(caught, node.handlers)]
        skipped = [] if optional else [node for one in tried for node in one.body]
        for node in (node for node in nodes if node not in skipped):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            yield from ((module.split(".")[0], path.relative_to(ROOT)) for module in modules)


def caught(handler):
    return getattr(handler.type, "id", None)


def undeclared(folder, requirements, own):
    declared = {name_of(requirement) for requirement in requirements}
    distributions = packages_distributions()
    return sorted(
        (module, str(path))
        for module, path in imports(folder)
        if module not in sys.stdlib_module_names | own
        and not declared & {name_of(name) for name in distributions.get(module, [module])}
    )


def test_every_import_of_the_package_is_declared():
    optional = [one for name, extra in EXTRAS.items() if name != "dev" for one in extra]
    assert undeclared("src", PROJECT["dependencies"] + optional, {"bfpo"}) == []


@pytest.mark.parametrize("folder", UNSHIPPED)
def test_every_import_of_tests_studies_and_benchmarks_is_declared(folder):
    everything = PROJECT["dependencies"] + [one for extra in EXTRAS.values() for one in extra]
    helpers = {path.stem for part in UNSHIPPED for path in (ROOT / part).rglob("*")} | set(UNSHIPPED)
    assert undeclared(folder, everything, helpers | {"bfpo"}) == []


def test_every_dependency_is_pinned_for_our_own_environment():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert len({name_of(line) for line in lines}) == len(lines)
    declared = PROJECT["dependencies"] + EXTRAS["dev"] + EXTRAS["trl"] + EXTRAS["lm-eval"]
    assert {name_of(one) for one in declared} - {name_of(line) for line in lines} - {"bfpo"} == set()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and sdist, built from a copy, so that no build folder is left in the checkout."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "copy", ignore=NOT_SOURCES)
    command = "from setuptools import build_meta as b; b.build_sdist('../out'); b.build_wheel('../out')"
    (folder / "out").mkdir()
    subprocess.run([sys.executable, "-c", command], cwd=folder / "copy", check=True, capture_output=True, text=True)
    (sdist,), (wheel,) = (folder / "out").glob("*.tar.gz"), (folder / "out").glob("*.whl")
    return sdist, wheel


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(built):
    wheel = built[1]
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    sources = {
        path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "bfpo").rglob("*") if path.is_file()
    }
    assert names == {name for name in sources if "__pycache__" not in name}
    assert wheel.stat().st_size <= 6_000_000


def test_the_wheel_s_description_links_only_to_addresses(built):
    with zipfile.ZipFile(built[1]) as file:
        (metadata,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        message = message_from_bytes(file.read(metadata))
    links = re.findall(r"\]\(([^)]+)\)", message.get_payload())
    assert links
    assert all(link.startswith("https://") for link in links)
    assert message["Author"] == "bfpo contributors"


QUICKSTART = """
import bfpo, sys
from pathlib import Path
from bfpo.quickstart import Scale, run_quickstart
assert Path(bfpo.__file__).is_relative_to(sys.argv[1]), bfpo.__file__
scale = Scale(chat=12, safety=24, helpful=8, sft_steps=1, steps=2, batch_size=8)
print(run_quickstart(Path("run"), 0, scale, lambda line: None, per_kind=4).report.page)
"""


@pytest.mark.long
def test_the_installed_wheel_runs_the_quickstart_away_from_the_checkout(built, tmp_path):
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target]
    subprocess.run([*command, built[1]], check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", QUICKSTART, str(target)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "SafeHelp report" in (tmp_path / done.stdout.splitlines()[-1]).read_text(encoding="utf-8")
    listed = subprocess.run(
        [sys.executable, "-m", "bfpo", "recipe", "list"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "paper-bfpo" in listed.stdout


def test_the_sdist_holds_all_that_the_readme_and_the_tests_need(built):
    with tarfile.open(built[0]) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    needed = {path.relative_to(ROOT).as_posix() for part in (*UNSHIPPED, "docs") for path in (ROOT / part).rglob("*.*")}
    assert {name for name in needed if "__pycache__" not in name} <= names
    assert {"Makefile", "constraints.txt", ".ci/run", "CITATION.cff", "SECURITY.md", "LICENSE"} <= names
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert {link for link in links if "://" not in link} <= names


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_no_code_or_file_name_is_bound_to_one_platform():
    assert [
        (module, path)
        for part in ("src", "studies")
        for module, path in imports(part, optional=False)
        if module in PLATFORM_ONLY
    ] == []
    # strftime's %-d is unknown to Windows.
    paths = [path for part in ("src", "studies") for path in (ROOT / part).rglob("*.py")]
    assert [path for path in paths if re.search(r"strftime\([^)]*%-", path.read_text(encoding="utf-8"))] == []
    for part in ("src", "docs", *UNSHIPPED):
        for path in (ROOT / part).rglob("*"):
            assert not set(path.name) & set('<>:"\\|?*'), path
            assert not re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", path.name), path
