"""The vocabulary shared by data, engine and objectives: a batch of *groups*.

A group is one prompt with K >= 1 answers. A preference pair is K = 2 and supervised fine-tuning is K = 1.
The N answers of a batch lie in one flat row, group after group.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class GroupLogps:
    """What the engine measures of a batch of groups.

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


@dataclass(frozen=True)
class GroupLabels:
    """What people or judges say of a batch of groups.

    Attributes:
        is_safe: [N] probability in [0, 1] that the answer is safe; NaN where nobody said.
        first: [P] int, index into the N answers: the more helpful answer of each pair, as far as is known.
        second: [P] int, index of the other answer of the pair, of the same group.
        first_is_better: [P] probability in [0, 1] that ``first`` is more helpful than ``second``.
        b1: [P] the labeling function's b1 where a pair has its own (its harm category's), NaN where it has none;
            None if no pair has.
        alpha: [P] the same of alpha.
    """

    is_safe: Tensor
    first: Tensor
    second: Tensor
    first_is_better: Tensor
    b1: Tensor | None = None
    alpha: Tensor | None = None
