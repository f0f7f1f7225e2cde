"""Errors for users: each message is one sentence that says what went wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BfpoError(Exception):
    """Wrong usage or bad input that the user can fix; the command line prints it and exits with code 2."""


class RunError(Exception):
    """A check or run that failed on valid input; the command line prints it and exits with code 1."""


def one_line(error: BaseException, limit: int | None = 200) -> str:
    """The text of another library's error on one line, of at most ``limit`` characters; its type if it has no text."""
    return " ".join(str(error).split())[:limit].rstrip(".") or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: ``" (did you mean 'beta'?)"``, or the empty string if nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
