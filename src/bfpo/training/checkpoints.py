"""Which checkpoints are complete: a marker is written last, and only a marked one is resumed from."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

MARKER = "complete"
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")


def mark_complete(checkpoint: Path) -> None:
    """Declare that nothing more will be written into a checkpoint."""
    (checkpoint / MARKER).touch()


def newest_complete_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps, or None."""
    complete = [path for path in _checkpoints(folder) if (path / MARKER).exists()]
    return max(complete, key=_step, default=None)


def remove_incomplete_checkpoints(folder: Path) -> list[Path]:
    """Delete what a killed run left half-written, and say what it was."""
    incomplete = [path for path in _checkpoints(folder) if not (path / MARKER).exists()]
    for path in incomplete:
        shutil.rmtree(path)
    return incomplete


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]


def _step(checkpoint: Path) -> int:
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1])
