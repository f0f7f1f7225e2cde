"""Silencing of the libraries' own terminal output, for commands that show their own progress."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Limit transformers to errors, and hide the progress bars of transformers and datasets."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
