"""Find an objective by its name; what an objective is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from torch import Tensor

from bfpo.errors import BfpoError, did_you_mean
from bfpo.groups import GroupLabels, GroupLogps


class Objective(Protocol):
    """A loss over groups of answers: a frozen dataclass whose fields are exactly the options it reads.

    Attributes:
        reads_safety: whether the loss needs ``GroupLabels.is_safe``.
        needs_reference: whether the loss needs ``GroupLogps.reference``.
        normalizer: what a step's summed loss is divided by: the number of groups, or of answer tokens.
    """

    @property
    def beta(self) -> float | None:
        """Strength of the pull to the reference, or None."""
        ...

    @property
    def reduction(self) -> Literal["sum", "mean"]:
        """How the token log-ratios of an answer become one number."""
        ...

    reads_safety: ClassVar[bool]
    needs_reference: ClassVar[bool]
    normalizer: ClassVar[Literal["groups", "tokens"]]

    def __call__(self, logps: GroupLogps, labels: GroupLabels) -> Tensor:
        """[G] loss of every group, differentiable in ``logps.policy``."""
        ...

    def target(self, labels: GroupLabels) -> Tensor | None:
        """[P] what beta * h of every pair is drawn to, or None where the loss has no finite target."""
        ...


OBJECTIVES: dict[str, type] = {}
Class = TypeVar("Class", bound=type)


def objective(name: str) -> Callable[[Class], Class]:
    """Register an objective's class under a name."""

    def register(cls: Class) -> Class:
        OBJECTIVES[name] = cls
        return cls

    return register


def options_of(name: str) -> dict[str, Any]:
    """The options that the objective ``name`` reads, with their defaults.

    Raises:
        BfpoError: if no objective has that name.
    """
    return {field.name: field.default for field in dataclasses.fields(_class_of(name))}


def build_objective(name: str, options: Mapping[str, Any]) -> Objective:
    """The objective ``name`` with these options and its own defaults for the others.

    Raises:
        BfpoError: if no objective has that name, it doesn't read an option, or a value is out of range.
    """
    known = options_of(name)
    for key in options:
        if key not in known:
            raise BfpoError(
                f"objective {name!r} does not read the option {key!r}{did_you_mean(key, known)}: "
                f"remove it, it reads {', '.join(known) or 'no options'}"
            )
    return _class_of(name)(**options)


def _class_of(name: str) -> type:
    # The modules register their classes when they are imported.
    from bfpo.objectives import bfpo, pairwise, sft  # noqa: F401

    if name not in OBJECTIVES:
        raise BfpoError(
            f"unknown objective {name!r}{did_you_mean(name, OBJECTIVES)}: choose one of {', '.join(sorted(OBJECTIVES))}"
        )
    return OBJECTIVES[name]
