"""Progress on the terminal: a bar, or plain lines where the output is not a terminal."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from bfpo.training.pair_metrics import CELLS

# Seconds between lines about the reference where there is no bar.
_SECONDS_A_LINE = 30.0


class ProgressLine(TrainerCallback):
    """The loss, learning rate and safety-cell metrics of each log, the rate in groups, evaluations, and maybe a bar."""

    def __init__(self, console: Console, groups_per_step: int) -> None:
        self.console, self.groups_per_step = console, groups_per_step
        self.progress = _bar("training", console)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start at the current step, which is not 0 in a resumed run."""
        self.started, self.first_step = time.monotonic(), state.global_step
        self.task = self.progress.add_task("", total=state.max_steps, completed=state.global_step, note="")
        if self.console.is_terminal and state.is_world_process_zero:
            self.progress.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self.progress.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the latest metrics."""
        if not logs or not state.is_world_process_zero:
            return
        if "loss" in logs:
            seconds = time.monotonic() - self.started
            done = (state.global_step - self.first_step) * self.groups_per_step
            note = f"{done / seconds:.1f} groups/s  {describe(logs)}"
            self.progress.update(self.task, note=note)
            if not self.console.is_terminal:
                left = seconds / max(done, 1) * (state.max_steps - state.global_step) * self.groups_per_step
                self._line(f"step {state.global_step}/{state.max_steps}  {_minutes(left)} left  {note}")
        for name in (name for name in logs if name.startswith("eval") and name.endswith("_loss")):
            self._line(f"step {state.global_step}/{state.max_steps}  {name} {logs[name]:.4g}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the bar."""
        self.progress.stop()

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class ReferenceProgress:
    """Progress of scoring the reference: call it with the numbers of answers scored and to score."""

    def __init__(self, console: Console) -> None:
        self.console, self.progress = console, _bar("reference", console)
        self.task, self.written = self.progress.add_task("", note=""), time.monotonic()

    def __call__(self, scored: int, to_score: int) -> None:
        """Show the state."""
        self.progress.update(self.task, completed=scored, total=to_score)
        if self.console.is_terminal:
            self.progress.start()
            if scored == to_score:
                self.progress.stop()
        elif scored == to_score or time.monotonic() - self.written > _SECONDS_A_LINE:
            self.written = time.monotonic()
            self.console.print(f"reference: {scored:,} of {to_score:,} answers scored", highlight=False)


class _Bar(Progress):
    """A bar that writes nothing when it is stopped where the output is not a terminal."""

    def stop(self) -> None:
        """Stop, and give the terminal its cursor back."""
        if self.console.is_terminal:
            super().stop()


def _bar(what: str, console: Console) -> Progress:
    return _Bar(
        TextColumn(what),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def describe(logs: dict[str, float]) -> str:
    """One line with the loss, the learning rate, and each safety cell's gap to the target and sign accuracy."""
    parts = [f"loss {logs['loss']:.4g}", f"lr {logs['learning_rate']:.3g}"]
    for cell in CELLS:
        if f"cells/{cell}/count" not in logs:
            continue
        gap = logs.get(f"cells/{cell}/gap")
        sign = logs[f"cells/{cell}/sign_accuracy"]
        parts.append(f"{cell} {'' if gap is None else f'gap {gap:+.2f} '}sign {sign:.0%}")
    return "  ".join(parts)
