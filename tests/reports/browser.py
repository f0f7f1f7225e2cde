"""A real headless Chromium that records its activity while a page is open."""

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest


@dataclass
class Watched:
    """A page with the dialogs, requests and errors that it caused."""

    page: object
    requests: list = field(default_factory=list)
    dialogs: list = field(default_factory=list)
    complaints: list = field(default_factory=list)


@contextmanager
def chromium():
    """The browser; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on the path")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def opened(browser, path, fragment="", **settings):
    """Open a report and wait until its answers are there."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | settings))
    page = context.new_page()
    watched = Watched(page)
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on("console", lambda message: watched.complaints.append(message.text))
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (watched.dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri() + fragment)
    page.wait_for_selector("html[data-ready=yes]", timeout=20_000)
    return watched
