"""What commands keep out of the terminal."""

import subprocess
import sys

CODE = """
import warnings
from bfpo.quiet import quiet_libraries
quiet_libraries()
warnings.warn("`is_gradient_checkpointing` is deprecated and will be removed in v6.", FutureWarning)
warnings.warn("something else is deprecated", FutureWarning)
"""


def test_a_warning_about_pefts_own_code_is_not_shown_and_others_are():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert "something else is deprecated" in done.stderr
    assert "is_gradient_checkpointing" not in done.stderr
