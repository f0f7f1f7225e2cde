"""Registry of objectives, the `Objective` protocol, and `build_objective`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, get_type_hints

from torch import Tensor

from bfpo.errors import BfpoError, did_you_mean
from bfpo.groups import GroupLabels, GroupLogps
from bfpo.objectives.bfpo import BFPO
from bfpo.objectives.bso import BSO
from bfpo.objectives.kto import KTO
from bfpo.objectives.modpo import MODPO
from bfpo.objectives.pairwise import DPO, IPO
from bfpo.objectives.rdpo import RobustDPO
from bfpo.objectives.reference_free import ORPO, SimPO
from bfpo.objectives.safedpo import SafeDPO
from bfpo.objectives.sft import SFT


class Objective(Protocol):
    """A loss over groups of answers: a frozen dataclass whose fields are exactly the options it reads.

    Recipes and `BFPOConfig` take an objective's options and defaults from its fields.

    Attributes:
        reads_safety: whether the loss needs ``GroupLabels.is_safe``.
        reads_reward: whether the loss needs ``GroupLabels.reward``.
        needs_reference: whether the loss needs ``GroupLogps.reference``.
        needs_probabilities: whether the loss refuses flags and orders outside [0, 1], as unbiased ones are.
        estimates_kl: whether the loss is called with ``kl``, the trainer's estimate over the step, as a third argument.
        normalizer: divisor of a step's summed loss: the number of groups, or of answer tokens.
    """

    reads_safety: ClassVar[bool]
    reads_reward: ClassVar[bool]
    needs_reference: ClassVar[bool]
    estimates_kl: ClassVar[bool]
    normalizer: ClassVar[Literal["groups", "tokens"]]

    @property
    def needs_probabilities(self) -> bool: ...  # noqa: D102  # BFPO's depends on an option

    def __call__(self, logps: GroupLogps, labels: GroupLabels) -> Tensor:
        """[G] loss of every group, which depends only on its own answers; differentiable in ``logps.policy``."""
        ...

    def rewards(self, logps: GroupLogps) -> Tensor | None:
        """[N] implicit reward of every answer, or None if the loss has none."""
        ...

    def target(self, labels: GroupLabels) -> Tensor | None:
        """[P] regression target of each pair's difference in reward, or None if the loss has none."""
        ...


OBJECTIVES: Mapping[str, type] = {
    "bfpo": BFPO,
    "dpo": DPO,
    "rdpo": RobustDPO,
    "ipo": IPO,
    "simpo": SimPO,
    "orpo": ORPO,
    "kto": KTO,
    "safedpo": SafeDPO,
    "bso": BSO,
    "modpo": MODPO,
    "sft": SFT,
}


def option_types() -> dict[str, Any]:
    """Types of the options of all objectives, by name."""
    types: dict[str, Any] = {}
    for objective in OBJECTIVES.values():
        hints = get_type_hints(objective)
        for field in dataclasses.fields(objective):
            types[field.name] = types.get(field.name, hints[field.name]) | hints[field.name]
    return types


def build_objective(name: str, options: Mapping[str, Any]) -> Objective:
    """The objective ``name`` with these options, and defaults for the others.

    Raises:
        BfpoError: if there is no such objective, it doesn't read an option, or a value is out of range.
    """
    if name not in OBJECTIVES:
        raise BfpoError(
            f"unknown objective {name!r}{did_you_mean(name, OBJECTIVES)}: choose one of {', '.join(sorted(OBJECTIVES))}"
        )
    defaults = {field.name: field.default for field in dataclasses.fields(OBJECTIVES[name])}
    for key in options:
        if key not in defaults:
            raise BfpoError(
                f"objective {name!r} does not read the option {key!r}{did_you_mean(key, defaults)}: "
                f"remove it; it reads {', '.join(defaults) or 'no options'}"
            )
    if options.get("reduction") == "mean" and "beta" in defaults and "beta" not in options:
        raise BfpoError(
            f"reduction 'mean' needs an explicit beta: the default {defaults['beta']} is for sums over tokens "
            "and would be far too small for means"
        )
    return OBJECTIVES[name](**options)
