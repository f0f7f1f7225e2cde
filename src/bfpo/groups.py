"""Types shared by data, engine and objectives: a batch of *groups*.

A group is one prompt with K >= 1 answers: K = 2 for a preference pair, K = 1 for supervised fine-tuning.
The N answers of a batch are stored flat, group after group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from bfpo.errors import BfpoError

Reduction = Literal["sum", "mean"]


@dataclass(frozen=True)
class TokenGroup:
    """One prompt and its K >= 1 answers as token ids; every part has at least one token.

    Attributes:
        prompt: tokens of the prompt.
        answers: tokens of each answer.
        context: places in each answer of tokens that are not scored, such as a user's turn; empty if there are none.
    """

    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]
    context: Sequence[Sequence[int]] = ()

    @property
    def width(self) -> int:
        """Tokens of the longest sequence, prompt and answer together."""
        return len(self.prompt) + max(len(answer) for answer in self.answers)

    def scored(self, answer: int) -> Sequence[int]:
        """Places of an answer's scored tokens."""
        places = range(len(self.answers[answer]))
        skipped = set(self.context[answer]) if len(self.context) else ()
        return [place for place in places if place not in skipped] if skipped else places


@dataclass(frozen=True)
class GroupLogps:
    """Log-probabilities of a batch of groups.

    Attributes:
        policy: [N] summed log-probability of each answer's tokens under the model in training, in nats.
        reference: [N] the same under the reference model; None if the objective doesn't need it.
        tokens: [N] int, number of scored tokens in each answer.
        group: [N] int, index of each answer's group, 0 .. G-1, non-decreasing.
        groups: G, the number of groups; None to read it from ``group``, which waits for the device.
    """

    policy: Tensor
    reference: Tensor | None
    tokens: Tensor
    group: Tensor
    groups: int | None = None

    def summed(self, values: Tensor, group: Tensor | None = None) -> Tensor:
        """[G] sums by group of answers' values, or of values whose groups are given."""
        groups = int(self.group[-1]) + 1 if self.groups is None else self.groups
        return values.new_zeros(groups).index_add(0, self.group if group is None else group, values)

    def log_ratios(self, reduction: Reduction = "sum") -> Tensor:
        """[N] log(pi/pi_ref) of every answer, summed or averaged over its tokens."""
        if self.reference is None:
            raise BfpoError("this objective needs reference log-probabilities: build them before training")
        ratios = self.policy - self.reference
        return ratios / self.tokens if reduction == "mean" else ratios

    def margins(self, labels: GroupLabels, reduction: Reduction = "sum") -> Tensor:
        """[P] h, the log-ratio of each pair's first answer minus that of its second (IPO, arXiv 2310.12036)."""
        ratios = self.log_ratios(reduction)
        return ratios[labels.first] - ratios[labels.second]

    def levels(self, reduction: Reduction = "sum") -> Tensor:
        """[G] mean log-ratio of each group's answers, which margins leave free."""
        ratios = self.log_ratios(reduction)
        return self.summed(ratios) / self.summed(torch.ones_like(ratios))

    def mean_over_pairs(
        self, values: Tensor, labels: GroupLabels, level: float = 0.0, reduction: Reduction = "sum"
    ) -> Tensor:
        """[G] mean of [P] pair values over each group's pairs, plus the anchor, ``level`` times its squared level.

        Both are multiplied by the group's weight if it has one.

        Raises:
            BfpoError: if a group has no pair, i.e. only one answer.
        """
        owner = self.group[labels.first]
        count = self.summed(torch.ones_like(values), owner)
        if not labels.is_checked and (count == 0).any():
            raise BfpoError(
                "a pairwise objective needs at least two answers per prompt: train single answers with 'sft'"
            )
        mean = self.summed(values, owner) / count
        if level:
            mean = mean + level * self.levels(reduction) ** 2
        # All answers of a group have its weight.
        return mean if labels.weight is None else mean * mean.index_copy(0, self.group, labels.weight.to(mean))


@dataclass(frozen=True)
class GroupLabels:
    """Labels of a batch of groups, by people or judges.

    Attributes:
        is_safe: [N] probability in [0, 1] that the answer is safe; NaN if unknown.
        first: [P] int, index of the presumably more helpful answer of each pair among the N answers.
        second: [P] int, index of the pair's other answer, from the same group.
        first_is_better: [P] probability in [0, 1] that ``first`` is more helpful than ``second``.
        cost: [N] cost of the answer's harm, in units of the label; None if BFPO's b3 prices all harm.
        weight: [N] factor of the loss of the answer's group, >= 0; None if no group has one.
        reward: [N] reward of the answer by another objective (MODPO); None if no answer has one.
        is_checked: whether the rows' flags, orders and pairs fit the objective for certain, as the trainer has seen to
            before the first step; objectives don't check them again, which would wait for the device in every call.
    """

    is_safe: Tensor
    first: Tensor
    second: Tensor
    first_is_better: Tensor
    cost: Tensor | None = None
    weight: Tensor | None = None
    reward: Tensor | None = None
    is_checked: bool = False

    def of(self, answers: slice) -> GroupLabels:
        """The labels of a range of answers that spans whole groups, and of the pairs among them."""
        pairs = (self.first >= answers.start) & (self.first < answers.stop)
        by_answer = {name: getattr(self, name) for name in ("is_safe", "cost", "weight", "reward")}
        return replace(
            self,
            **{name: values[answers] for name, values in by_answer.items() if values is not None},
            first=self.first[pairs] - answers.start,
            second=self.second[pairs] - answers.start,
            first_is_better=self.first_is_better[pairs],
        )

    def refuse_unfit(self, name: str, needs_probabilities: bool) -> None:
        """Refuse unknown flags for the loss ``name``, and flags and orders outside [0, 1] if it needs probabilities.

        Raises:
            BfpoError: if there is one, and the labels are not checked yet.
        """
        if self.is_checked:
            return
        if torch.isnan(self.is_safe).any():
            raise BfpoError(
                f"{name} needs the safety of every answer, and some are unknown: label them, or set the "
                "source's unknown_safety to a probability or to 'drop'"
            )
        for what, values in (("safety flag", self.is_safe), ("order", self.first_is_better)):
            if needs_probabilities and ((values < 0) | (values > 1)).any():
                raise BfpoError(f"{name} needs probabilities, and one {what} is outside [0, 1]: use verdicts instead")

    def to(self, device: torch.device | str) -> GroupLabels:
        """The same labels on a device."""
        tensors = {name: moved(value, device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)


def moved(values: Tensor, device: torch.device | str) -> Tensor:
    """Values on a device; a copy to a GPU is from pinned memory, which doesn't wait for the work that the GPU has."""
    if values.is_cpu and torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


@dataclass(frozen=True)
class LossInputs:
    """Inputs to a batch's loss, except the log-probabilities under the model in training.

    Attributes:
        objective: maps log-probabilities and labels to [G] losses, each of which depends only on its own group.
        labels: the labels of the batch.
        reference: [N] log-probabilities under the reference model, in nats; None if the objective needs none.
        scale: factor applied to every group's loss.
    """

    objective: Callable[[GroupLogps, GroupLabels], Tensor]
    labels: GroupLabels
    reference: Tensor | None = None
    scale: float = 1.0

    def of(self, answers: slice) -> LossInputs:
        """The inputs of a range of answers that spans whole groups."""
        reference = None if self.reference is None else self.reference[answers]
        return LossInputs(self.objective, self.labels.of(answers), reference, self.scale)
