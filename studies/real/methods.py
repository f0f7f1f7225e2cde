"""The methods of the real-model study and the settings that each of them is tuned over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bfpo.preferences.ordering import Order

# Learning rate, beta and the norm that gradients are clipped to; SFT has no beta.
Point = tuple[float, float, float]
POINTS: tuple[Point, ...] = ((1e-3, 0.1, 1.0), (1e-3, 0.02, 1.0), (2e-3, 0.02, 10.0))
# Of the model before training.
NOTHING: Point = (0.0, 0.0, 0.0)
SFT_POINTS: tuple[Point, ...] = ((1e-3, 0.0, 1.0), (3e-4, 0.0, 1.0), (1e-4, 0.0, 1.0))


@dataclass(frozen=True)
class Method:
    """A way to learn from the mix.

    Attributes:
        summary: description in one line.
        stage: of the recipe.
        loss_type: name of the objective.
        orders: order of the mixed pairs and of the edge pairs.
        buffer: whether helpful pairs fill half of every step.
        edge: whether edge pairs are trained on.
        trained: what is trained: an adapter on all linear layers, or the weights named.
        options: the objective's other options.
        tuned_as: method whose settings it takes; by default it is tuned itself.
    """

    summary: str
    stage: Literal["preference", "sft"] = "preference"
    loss_type: str = "bfpo"
    orders: tuple[Order, Order] = ("helpful", "helpful")
    buffer: bool = True
    edge: bool = True
    trained: str = "lora"
    options: Mapping[str, Any] = field(default_factory=dict)
    tuned_as: str = ""

    @property
    def points(self) -> tuple[Point, ...]:
        """The settings to try."""
        return SFT_POINTS if self.stage == "sft" else POINTS


METHODS: dict[str, Method] = {
    "BFPO": Method("the shipped default"),
    "DPO-safe-first": Method("DPO, the safer answer first", loss_type="dpo", orders=("safe_first", "safe_first")),
    "DPO-mix": Method(
        "naive mix: DPO on the safer answers of mixed pairs, and on helpfulness", loss_type="dpo",
        orders=("safer", "helpful"),
    ),
    "DPO-H": Method("DPO on orders by helpfulness", loss_type="dpo"),
    "SFT": Method(
        "SFT on the safer answers, and on the more helpful ones", "sft", "sft", ("safe_first", "safe_first")
    ),
}  # fmt: skip
# Variants of BFPO, with clean labels.
ABLATIONS: dict[str, Method] = {
    "BFPO-no-buffer": Method("without helpful pairs", buffer=False, tuned_as="BFPO"),
    "BFPO-no-edge": Method("without edge pairs", edge=False, tuned_as="BFPO"),
    "BFPO-down-proj": Method(
        "the weights of all down projections instead of an adapter", trained="down_proj", tuned_as="BFPO"
    ),
}  # fmt: skip
