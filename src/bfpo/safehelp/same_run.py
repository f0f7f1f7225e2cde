"""The rule that two headers belong to one run, which resumes or is made in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bfpo.errors import BfpoError
from bfpo.generation.protocol import without_address
from bfpo.safehelp.records import RunHeader

# A run resumes only if these are equal; versions, times, counts and the path of known weights may differ.
_IDENTITY = (
    "model", "model_digest", "suite", "suite_digest", "chat_template_sha256", "system_prompt", "extra_body", "decoding",
    "judges",
)  # fmt: skip


def check_same_run(folder: Path, found: RunHeader, header: RunHeader, *, what: str = "a run") -> None:
    """Check that the header in a folder is of the same run.

    Raises:
        BfpoError: if it isn't; the first difference is named.
    """
    compared = {name: (getattr(found, name), getattr(header, name)) for name in _IDENTITY}
    if not header.model_digest:
        # The weights of a server are unknown, so its name of the model stands for them.
        compared["model_path"] = without_address(found.model_path), without_address(header.model_path)
    for name, (before, now) in compared.items():
        if before != now and name == "suite_digest":
            raise BfpoError(
                f"{folder}: contains {what} with other prompts, which the suite, its files and options such as "
                "--per-kind, --world or --attacks choose; give the same options, name another folder, or remove it"
            )
        if before != now:
            raise BfpoError(
                f"{folder}: contains {what} with another {name} ({_difference(before, now)}); name another folder, or "
                "remove it"
            )


def with_paths_of(header: RunHeader, others: Sequence[RunHeader]) -> RunHeader:
    """The header with the addresses of other headers of the same run or its parts, if a server's name is its model."""
    if header.model_digest:
        return header
    paths = dict.fromkeys(path for one in (header, *others) for path in (one.model_path, *one.other_paths) if path)
    return replace(header, other_paths=tuple(path for path in paths if path != header.model_path))


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        differing = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        return ", ".join(f"{key} {before.get(key)}, now {now.get(key)}" for key in differing)
    shown, shown_now = _shown(before), _shown(now)
    return f"{before}, now {now}" if shown == shown_now else f"{shown}, now {shown_now}"


def _shown(value: Any) -> str:
    """A setting in words: judges by their ids."""
    if isinstance(value, tuple):
        judges: tuple[Any, ...] = value  # pyright: ignore[reportUnknownVariableType]
        return " and ".join(getattr(one, "judge_id", str(one)) for one in judges) or "none"
    return str(value)
