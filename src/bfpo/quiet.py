"""Keeps the libraries' own chatter off the terminal, where a command shows its own progress."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Errors only, and no bars, from transformers and datasets."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
