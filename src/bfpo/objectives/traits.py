"""Traits of objectives: what they read besides log-probabilities and orders."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from bfpo.groups import GroupLabels


class Traits:
    """Base class with the traits of a loss over groups that needs a reference; `Objective` says what they mean."""

    reads_safety: ClassVar[bool] = False
    reads_reward: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = True
    estimates_kl: ClassVar[bool] = False
    needs_probabilities: ClassVar[bool] = False
    normalizer: ClassVar[Literal["groups", "tokens"]] = "groups"

    def target(self, labels: GroupLabels) -> Tensor | None:
        """None: the loss has no minimum in the margin of a pair."""
