"""The documentation site with a folder for every version."""

import functools
import http.server
import json
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import bfpo
from reports.browser import chromium

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "publish.py"
THIS = ".".join(bfpo.__version__.split(".")[:2])


@pytest.fixture
def list_versions():
    return runpy.run_path(str(SCRIPT))["list_versions"]


def test_the_newest_version_is_first_and_the_front_page_leads_to_it(tmp_path, list_versions):
    for name in ("0.9", "0.10", "0.2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text("")
    (tmp_path / "v.old").mkdir()
    (tmp_path / "v.old" / "index.html").write_text("")
    list_versions(tmp_path)
    found = json.loads((tmp_path / "versions.json").read_text())
    assert [(one["version"], one["aliases"]) for one in found] == [("0.10", ["latest"]), ("0.9", []), ("0.2", [])]
    assert 'url=0.10/"' in (tmp_path / "index.html").read_text()


def test_a_folder_with_another_front_page_is_left_alone(tmp_path):
    (tmp_path / "index.html").write_text("mine")
    made = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert made.returncode == 2
    assert "has an index.html of something else" in made.stderr
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_reader_changes_to_another_version_and_publishing_leaves_it_alone(tmp_path):
    pytest.importorskip("zensical", reason="zensical is not installed")
    old = tmp_path / "0.0" / "index.html"
    old.parent.mkdir()
    old.write_text("<p>an old version</p>")
    subprocess.run([sys.executable, SCRIPT, tmp_path], check=True, capture_output=True)
    assert old.read_text() == "<p>an old version</p>"
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, chromium() as browser:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_url(f"**/{THIS}/")
        page.wait_for_selector(".md-version__list", state="attached")
        names = [link.inner_text() for link in page.query_selector_all(".md-version__link")]
        page.hover(".md-version")
        page.click(f".md-version__link:text-is('{names[1]}')")
        page.wait_for_selector("text=an old version")
        server.shutdown()
    assert names == [THIS, "0.0"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing about requests."""

    def log_message(self, *_):
        pass
