"""The progress line on the terminal: rate, time left, loss and the health of the safety cells."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from bfpo.training.pair_metrics import CELLS


class ProgressLine(TrainerCallback):
    """One bar while training, with the last log's loss and cell health beside it.

    Args:
        console: where to draw.
        groups_per_step: groups of a global step, for the rate.
    """

    def __init__(self, console: Console, groups_per_step: int) -> None:
        self.groups_per_step = groups_per_step
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}  {task.fields[health]}"),
            console=console,
            transient=not console.is_terminal,
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar, at the step that a resumed run continues from."""
        self.started, self.first_step = time.monotonic(), state.global_step
        self.task = self.progress.add_task("", total=state.max_steps, completed=state.global_step, rate="", health="")
        self.progress.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        done = (state.global_step - self.first_step) * self.groups_per_step
        rate = f"{done / (time.monotonic() - self.started):.1f} groups/s"
        self.progress.update(self.task, completed=state.global_step, rate=rate)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the latest loss and cells."""
        if logs and "loss" in logs:
            self.progress.update(self.task, health=describe(logs))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the bar as it is."""
        self.progress.stop()


def describe(logs: dict[str, float]) -> str:
    """One line: the loss, and the distance to the target and the sign accuracy of each safety cell."""
    parts = [f"loss {logs['loss']:.4g}"]
    for cell in CELLS:
        if f"cells/{cell}/count" not in logs:
            continue
        gap = logs.get(f"cells/{cell}/gap")
        sign = logs[f"cells/{cell}/sign_accuracy"]
        parts.append(f"{cell} {'' if gap is None else f'gap {gap:+.2f} '}sign {sign:.0%}")
    return "  ".join(parts)
