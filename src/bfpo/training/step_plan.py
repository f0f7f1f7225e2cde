"""Seeded assignment of rows to steps, with a constant ratio of main to buffer rows, and its sampler and loader."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

from bfpo.errors import BfpoError

# Tokens of a full micro-batch, by which the largest steps are found; the same on every device, whatever its default.
_FULL = 16_384


@dataclass(frozen=True)
class StepPlan:
    """Steps of ``batch_size`` groups over ``main`` rows and a cycling ``buffer``.

    Rows are numbered 0 .. main - 1, then main .. main + buffer - 1. An epoch passes once over the main rows;
    the buffer continues where the last epoch stopped and is reshuffled after each pass. The last step of an epoch
    takes the remaining main rows and the same share of buffer rows.

    Attributes:
        main: number of main rows, > 0.
        buffer: number of buffer rows; 0 for none.
        batch_size: groups in a global step, buffer included.
        buffer_ratio: buffer groups for each main group.
        seed: seed for all shuffles.
        first: indices of the steps that the first epoch starts with.

    Raises:
        BfpoError: if there are no main rows, or ``batch_size`` doesn't allow the exact ratio.
    """

    main: int
    buffer: int
    batch_size: int
    buffer_ratio: float = 1.0
    seed: int = 0
    first: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.main <= 0:
            raise BfpoError("there is no row to train on: every source is empty or a buffer")
        if self.batch_size < 1:
            raise BfpoError(f"the batch size must be at least 1 group, not {self.batch_size}")
        if self.buffer and not self.buffer_ratio > 0:
            raise BfpoError(f"buffer_ratio must be greater than 0, not {self.buffer_ratio}: drop the buffer instead")
        share = self.batch_size / (1 + self.buffer_ratio)
        if self.buffer and (abs(share - round(share)) > 1e-9 or round(share) < 1):
            raise BfpoError(
                f"a batch of {self.batch_size} groups can't hold {self.buffer_ratio:g} buffer groups for each "
                "main group exactly: choose another batch size or buffer_ratio"
            )

    @property
    def main_per_step(self) -> int:
        """Number of main groups in a full step."""
        return round(self.batch_size / (1 + self.buffer_ratio)) if self.buffer else self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in one pass over the main rows."""
        return -(-self.main // self.main_per_step)

    def largest_first(self, tokens: np.ndarray) -> StepPlan:
        """The same steps, starting with the two that are likely to need the most memory.

        So an out-of-memory error shows up in step 1, or in step 2 once the optimizer state exists. The order depends on
        the rows alone, so that micro-batches and layout change no result: small steps go by their tokens, and those
        that fill the default micro-batch by their longest row.

        Args:
            tokens: [rows] number of tokens of every row, the prompt counted once.
        """
        steps = self.epoch(0)
        longest = np.array([tokens[step].max() for step in steps])
        largest = np.maximum(longest, [min(int(tokens[step].sum()), _FULL) for step in steps])
        return replace(self, first=tuple(np.lexsort((-longest, -largest))[:2].tolist()))

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """Row numbers of every step in an epoch (counted from 0)."""
        steps = self._steps(epoch)
        first = self.first if epoch == 0 else ()
        return [steps[at] for at in first] + [step for at, step in enumerate(steps) if at not in first]

    def _steps(self, epoch: int) -> list[np.ndarray]:
        order = np.random.default_rng([self.seed, 0, epoch]).permutation(self.main)
        parts = [order[at : at + self.main_per_step] for at in range(0, self.main, self.main_per_step)]
        if not self.buffer:
            return parts
        buffer_per_step = self.batch_size - self.main_per_step
        shares = [-(-len(part) * buffer_per_step // self.main_per_step) for part in parts]
        rows = self._buffer_rows(epoch * sum(shares), sum(shares))
        buffers = np.split(rows, np.cumsum(shares)[:-1])
        return [np.concatenate(pair) for pair in zip(parts, buffers, strict=True)]

    def _buffer_rows(self, start: int, count: int) -> np.ndarray:
        """Rows from ``start`` in the endless sequence of shuffled passes over the buffer."""
        passes = range(start // self.buffer, (start + count) // self.buffer + 1)
        shuffled = [np.random.default_rng([self.seed, 1, number]).permutation(self.buffer) for number in passes]
        offset = start - passes[0] * self.buffer
        return self.main + np.concatenate(shuffled)[offset : offset + count]


def whole_steps(max_steps: int, epochs: float, plan: StepPlan) -> int:
    """Number of steps of a run, as the Trainer counts them; ``max_steps`` counts if it is positive."""
    return max_steps if max_steps > 0 else math.ceil(plan.steps_per_epoch * epochs)


def some_steps(steps: int) -> int:
    """A number of steps to stop after, or -1 for whole epochs, for pydantic.

    Raises:
        ValueError: if it is anything else.
    """
    if steps < -1 or steps == 0:
        raise ValueError(f"{steps} would train nothing; write -1 for whole epochs")
    return steps


class StepSampler(Sampler[list[int]]):
    """Row numbers of one process's share of each global step."""

    def __init__(self, plan: StepPlan, process: int, processes: int) -> None:
        self.plan = plan
        self.process = process
        self.processes = processes
        self.current_epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch for the next pass."""
        self.current_epoch = epoch

    def __len__(self) -> int:
        """Number of steps in an epoch."""
        return self.plan.steps_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the steps of the current epoch."""
        for step in self.plan.epoch(self.current_epoch):
            yield step[self.process :: self.processes].tolist()


class StepLoader(DataLoader[Any]):
    """A loader whose batch is one process's share of a whole optimizer step."""

    def set_epoch(self, epoch: int) -> None:
        """Forward the epoch from the Trainer to the sampler."""
        assert isinstance(self.batch_sampler, StepSampler)
        self.batch_sampler.set_epoch(epoch)
