"""Build the site of this version into a folder that has one folder for every version, with a selector on every page.

    python docs/publish.py FOLDER

Writes ``FOLDER/MAJOR.MINOR/`` anew, ``FOLDER/versions.json`` (read by the selector, in the form of mike's), and
``FOLDER/index.html``, which leads to the newest version. The folders of other versions stay as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.version import Version

from bfpo import __version__

ROOT = Path(__file__).resolve().parents[1]
_LEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url={newest}/">
<title>bfpo</title>
<a href="{newest}/">bfpo {newest}</a>
</html>
"""


def main() -> None:
    """Build and list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of all versions")
    folder = parser.parse_args().folder.resolve()
    if (folder / "index.html").exists() and not (folder / "versions.json").exists():
        parser.error(
            f"{folder} has an index.html of something else: name an empty folder, or that of the published site"
        )
    name = ".".join(map(str, Version(__version__).release[:2]))
    build(folder / name)
    list_versions(folder)
    print(f"wrote {folder / name}")


def build(site: Path) -> None:
    """Build the site, and copy it into a folder in place of what is there; a broken internal link fails."""
    made = subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT, check=False)
    if made.returncode:
        sys.exit(made.returncode)
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(ROOT / "build" / "site", site)


def list_versions(folder: Path) -> None:
    """Write the list of the versions that are there, the newest first, and the page that leads to it."""
    names = (path.parent.name for path in folder.glob("*/index.html"))
    found = sorted((name for name in names if re.fullmatch(r"\d+\.\d+", name)), key=Version, reverse=True)
    listed = [{"version": name, "title": name, "aliases": ["latest"] * (name == found[0])} for name in found]
    (folder / "versions.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    (folder / "index.html").write_text(_LEAD.format(newest=found[0]), encoding="utf-8")


if __name__ == "__main__":
    main()
