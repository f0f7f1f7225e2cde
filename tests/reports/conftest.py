"""A fixture for tests that read a page's words."""

import pytest

from bfpo.reports.drawing import Plot


@pytest.fixture
def without_plots(monkeypatch):
    """Pages without plots, which take most of the time that a page takes."""
    monkeypatch.setattr(Plot, "write", lambda plot, folder: ("<svg></svg>", "<svg></svg>"))
