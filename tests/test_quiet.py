"""What commands keep out of the terminal."""

import subprocess
import sys

CODE = """
import logging
import warnings
from bfpo.quiet import quiet_advice, quiet_libraries
quiet_advice()
quiet_libraries()
warnings.warn("`is_gradient_checkpointing` is deprecated and will be removed in v6.", FutureWarning)
logging.getLogger("bitsandbytes.backends.cpu.ops").warning("fetch a kernel")
logging.getLogger("bitsandbytes.functional").warning("a tensor is too large")
warnings.warn("something else is deprecated", FutureWarning)
"""


def test_warnings_about_libraries_own_code_are_not_shown_and_others_are():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert "something else is deprecated" in done.stderr
    assert "is_gradient_checkpointing" not in done.stderr
    assert "a tensor is too large" in done.stderr
    assert "fetch a kernel" not in done.stderr
