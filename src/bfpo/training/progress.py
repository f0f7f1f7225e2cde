"""Progress bar for the terminal: rate, time left, loss and safety-cell metrics."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from bfpo.training.pair_metrics import CELLS


class ProgressLine(TrainerCallback):
    """A progress bar with the loss and safety-cell metrics of the latest log.

    Args:
        console: console to draw on.
        groups_per_step: groups in a global step, for the rate.
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
        """Start the bar at the current step, which is not 0 in a resumed run."""
        self.started, self.first_step = time.monotonic(), state.global_step
        self.task = self.progress.add_task("", total=state.max_steps, completed=state.global_step, rate="", health="")
        self.progress.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        done = (state.global_step - self.first_step) * self.groups_per_step
        rate = f"{done / (time.monotonic() - self.started):.1f} groups/s"
        self.progress.update(self.task, completed=state.global_step, rate=rate)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the latest metrics."""
        if logs and "loss" in logs:
            self.progress.update(self.task, health=describe(logs))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the bar."""
        self.progress.stop()


def describe(logs: dict[str, float]) -> str:
    """One line with the loss, and each safety cell's gap to the target and sign accuracy."""
    parts = [f"loss {logs['loss']:.4g}"]
    for cell in CELLS:
        if f"cells/{cell}/count" not in logs:
            continue
        gap = logs.get(f"cells/{cell}/gap")
        sign = logs[f"cells/{cell}/sign_accuracy"]
        parts.append(f"{cell} {'' if gap is None else f'gap {gap:+.2f} '}sign {sign:.0%}")
    return "  ".join(parts)
