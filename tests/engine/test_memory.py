"""Estimated against real peak memory, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("memory_run.py")


@pytest.mark.parametrize(
    ("groups", "layout", "tokens", "trained", "bf16", "checkpointing"),
    [
        (6, "shared", 1024, "all", 0, 0),
        pytest.param(6, "shared", 2048, "down_proj", 0, 0, marks=pytest.mark.long),
        pytest.param(6, "shared", 16384, "all", 0, 0, marks=pytest.mark.long),
        pytest.param(6, "padded", 1024, "all", 0, 0, marks=pytest.mark.long),
        pytest.param(16, "shared", 16384, "all", 0, 1, marks=pytest.mark.long),
        # Few, for bf16 is slow on a CPU that only imitates it.
        pytest.param(3, "shared", 16384, "all", 1, 0, marks=pytest.mark.long),
    ],
)
def test_estimates_are_within_a_fifth(groups, layout, tokens, trained, bf16, checkpointing):
    if not sys.platform.startswith("linux"):
        pytest.skip("peak memory is read as Linux reports it")
    command = [sys.executable, str(SCRIPT), str(groups), layout, str(tokens), trained, str(bf16), str(checkpointing)]
    # Blocks that are freed go back to the system at once, so that the peak is what was in use.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    expected, found = json.loads(done.stdout)
    assert 0.8 * found <= expected <= 1.2 * found
