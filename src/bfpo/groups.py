"""The vocabulary shared by data, engine and objectives: a batch of *groups*.

A group is one prompt with K >= 1 answers. A preference pair is K = 2 and supervised fine-tuning is K = 1.
The N answers of a batch lie in one flat row, group after group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from bfpo.errors import BfpoError

Reduction = Literal["sum", "mean"]


@dataclass(frozen=True)
class TokenGroup:
    """One prompt and its K >= 1 answers as token ids; every part has at least one token."""

    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]

    @property
    def width(self) -> int:
        """Tokens of the longest sequence, prompt and answer together."""
        return len(self.prompt) + max(len(answer) for answer in self.answers)


@dataclass(frozen=True)
class GroupLogps:
    """Log-probabilities of a batch of groups, as the engine measures them.

    Attributes:
        policy: [N] sum of the answer tokens' log-probabilities under the model in training, in nats.
        reference: [N] the same under the reference model, or None where no objective needs it.
        tokens: [N] int, number of answer tokens that were summed.
        group: [N] int, the group that each answer belongs to, 0 .. G-1, non-decreasing.
    """

    policy: Tensor
    reference: Tensor | None
    tokens: Tensor
    group: Tensor

    def log_ratios(self, reduction: Reduction = "sum") -> Tensor:
        """[N] log(pi/pi_ref) of every answer, summed over its tokens or averaged over them."""
        if self.reference is None:
            raise BfpoError("this objective needs reference log-probabilities: build them before training")
        ratios = self.policy - self.reference
        return ratios / self.tokens if reduction == "mean" else ratios

    def margins(self, labels: GroupLabels, reduction: Reduction = "sum") -> Tensor:
        """[P] h, the log-ratio of each pair's first answer less that of its second (IPO, arXiv 2310.12036)."""
        ratios = self.log_ratios(reduction)
        return ratios[labels.first] - ratios[labels.second]

    def mean_over_pairs(self, values: Tensor, labels: GroupLabels) -> Tensor:
        """[G] mean of [P] pair values over each group's pairs.

        Raises:
            BfpoError: if a group has no pair, as a lone answer has none.
        """
        owner = self.group[labels.first]
        zeros = torch.zeros(int(self.group[-1]) + 1, dtype=values.dtype, device=values.device)
        count = zeros.index_add(0, owner, torch.ones_like(values))
        if (count == 0).any():
            raise BfpoError("a pairwise objective needs at least two answers a prompt: train single answers with 'sft'")
        return zeros.index_add(0, owner, values) / count


@dataclass(frozen=True)
class GroupLabels:
    """Labels of a batch of groups, by people or judges.

    Attributes:
        is_safe: [N] probability in [0, 1] that the answer is safe; NaN where it is unknown.
        first: [P] int, index into the N answers: the more helpful answer of each pair, as far as is known.
        second: [P] int, index of the other answer of the pair, of the same group.
        first_is_better: [P] probability in [0, 1] that ``first`` is more helpful than ``second``.
        b1: [P] the labeling function's b1 where a pair has its own (its harm category's), NaN where it has none;
            None if no pair has.
        alpha: [P] the same for alpha.
    """

    is_safe: Tensor
    first: Tensor
    second: Tensor
    first_is_better: Tensor
    b1: Tensor | None = None
    alpha: Tensor | None = None

    def of(self, answers: slice) -> GroupLabels:
        """The labels of some whole groups: of answers ``start`` to ``stop`` and the pairs among them."""
        pairs = (self.first >= answers.start) & (self.first < answers.stop)
        return GroupLabels(
            is_safe=self.is_safe[answers],
            first=self.first[pairs] - answers.start,
            second=self.second[pairs] - answers.start,
            first_is_better=self.first_is_better[pairs],
            b1=None if self.b1 is None else self.b1[pairs],
            alpha=None if self.alpha is None else self.alpha[pairs],
        )

    def to(self, device: torch.device | str) -> GroupLabels:
        """The same labels on a device."""
        values = (getattr(self, field.name) for field in fields(self))
        return GroupLabels(*(None if value is None else value.to(device) for value in values))  # pyright: ignore


@dataclass(frozen=True)
class LossInputs:
    """All that a batch's loss is made of but the log-probabilities under the model in training.

    Attributes:
        objective: [G] losses from log-probabilities and labels, each from its own group's only.
        labels: the labels of the batch.
        reference: [N] log-probabilities under the reference model, in nats; None where the objective needs none.
        scale: factor of every group's loss.
    """

    objective: Callable[[GroupLogps, GroupLabels], Tensor]
    labels: GroupLabels
    reference: Tensor | None = None
    scale: float = 1.0

    def of(self, answers: slice) -> LossInputs:
        """The inputs of some whole groups: of answers ``start`` to ``stop``."""
        reference = None if self.reference is None else self.reference[answers]
        return LossInputs(self.objective, self.labels.of(answers), reference, self.scale)
