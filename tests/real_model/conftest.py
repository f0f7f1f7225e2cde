"""The real model of these tests: one folder of SmolLM2-135M-Instruct per session."""

import os
import shutil
from pathlib import Path

import pytest

from bfpo.errors import BfpoError
from bfpo.smollm2 import make_smollm2


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    """The model's folder: the one named by $BFPO_TEST_SMOLLM2, or a new one, removed at the end."""
    ready = os.environ.get("BFPO_TEST_SMOLLM2")
    if ready:
        yield Path(ready)
        return
    folder = tmp_path_factory.mktemp("real") / "smollm2"
    try:
        make_smollm2(folder)
    except BfpoError as error:
        pytest.skip(f"no SmolLM2: {error}")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for the runs of a file, removed at the end, because each has hundreds of megabytes."""
    folder = tmp_path_factory.mktemp("runs")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
