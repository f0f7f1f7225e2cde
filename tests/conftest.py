"""Shared test settings (no deadlines, offline, one thread per worker) and the folder of real samples."""

import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["BFPO_CACHE"] = tempfile.mkdtemp(prefix="bfpo-test-cache-")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

settings.register_profile("bfpo", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("bfpo")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public samples beside the checkout; its tests skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real samples (../shared/data) are not on this machine")
    return SHARED_DATA
