"""Silencing of the libraries' own terminal output, for commands that show their own progress."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Limit transformers to errors; hide its progress bars, those of datasets, and a warning about PEFT's code."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # PEFT reads a property that transformers renamed, whenever an adapter is added.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


def quiet_advice() -> None:
    """Hide advice of libraries that comes when they are imported; imports nothing itself."""
    # Where bitsandbytes is installed, PEFT imports it, and it advises to fetch a faster kernel for CPUs from the Hub.
    logging.getLogger("bitsandbytes.backends.cpu").setLevel(logging.ERROR)
