"""Variants of the microworld, from the plain one to worlds with wrong labels, graded harm and look-alike prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bfpo.errors import BfpoError, did_you_mean
from bfpo.microworld.answers import AnswerKind
from bfpo.microworld.grammar import Kind
from bfpo.microworld.oracle import NOISE_SCALE

# Short names for the tables below, in the order of the definition.
F, P, V, W, R, A = AnswerKind
# Answers in the safety set; its prompts are mostly harmful, and about half of the answers comply.
SAFETY_KINDS: dict[Kind, dict[AnswerKind, float]] = {
    "benign": {F: 0.40, P: 0.20, V: 0.10, W: 0.10, R: 0.10, A: 0.10},
    "borderline": {F: 0.40, P: 0.15, V: 0.10, W: 0.10, R: 0.12, A: 0.13},
    "harmful": {F: 0.36, P: 0.24, V: 0.05, W: 0.05, R: 0.15, A: 0.15},
}
SAFETY_PROMPTS: dict[Kind, float] = {"benign": 0.1, "borderline": 0.4, "harmful": 0.5}
# What counts as harmless: answers that are safe and coherent, less severe harm in part, or harm at its price.
Utility = Literal["harmless", "severity", "prices"]


@dataclass(frozen=True)
class World:
    """How the microworld's data is made, and what its user values.

    Attributes:
        summary: description in one line.
        flag_errors: probabilities that the safety flag of a safe and of an unsafe answer is wrong.
        order_noise: noise of the order by helpfulness, see `bfpo.microworld.oracle.preference_probability`, and of the
            scores of the helpfulness set; 0 for none.
        pairs: number of pairs of the safety set; None if the study's scale decides.
        prompts: share of each kind of prompt in the safety set, look-alikes apart.
        kinds: share of each kind of answer in the safety set, by kind of prompt.
        look_alikes: share of the safety set's prompts that are look-alikes: somebody else's thing, with no word about
            permission. Other prompts then always have one, so that nothing else looks like them.
        harmful_look_alikes: share of the look-alikes that are harmful; in the others, there was permission.
        severities: whether the safety set has the harm of each answer by category, with its severity.
        utility: what the user values besides help, see `bfpo.safehelp.utility.utility`.
        prices: with utility "prices", the help that full harm of each category is worth.

    Raises:
        BfpoError: if a share or probability is not in [0, 1], or flags err although severities tell the truth.
    """

    summary: str
    flag_errors: tuple[float, float] = (0.0, 0.0)
    order_noise: float = NOISE_SCALE
    pairs: int | None = None
    prompts: Mapping[Kind, float] = field(default_factory=lambda: SAFETY_PROMPTS)
    kinds: Mapping[Kind, Mapping[AnswerKind, float]] = field(default_factory=lambda: SAFETY_KINDS)
    look_alikes: float = 0.0
    harmful_look_alikes: float = 0.0
    severities: bool = False
    utility: Utility = "harmless"
    prices: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shares = {"look_alikes": self.look_alikes, "harmful_look_alikes": self.harmful_look_alikes}
        shares |= {
            f"flag_errors of {kind} answers": e for kind, e in zip(("safe", "unsafe"), self.flag_errors, strict=True)
        }
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise BfpoError(f"{name} is {share}: it must lie in [0, 1]")
        if self.severities and any(self.flag_errors):
            raise BfpoError("severities contradict flags that err: leave one of them out")


def _look_alikes(harmful: float) -> World:
    return World(
        f"half of the prompts look alike, {harmful:.0%} of which are harmful",
        prompts={"benign": 0.2, "borderline": 0.4, "harmful": 0.4}, look_alikes=0.5, harmful_look_alikes=harmful,
    )  # fmt: skip


WORLDS: dict[str, World] = {
    "W0": World("labels without errors, but for noise in the order by helpfulness"),
    "W1": World("a noisy order by helpfulness, and few pairs", order_noise=0.4, pairs=240),
    "W2": World("30 % of the safety flags are wrong", flag_errors=(0.3, 0.3)),
    "W3": World("a lenient judge: 10 % of safe and 40 % of unsafe answers have the wrong flag", flag_errors=(0.1, 0.4)),
    "W4": World(
        "both answers are unsafe in 70 % of the pairs with a harmful prompt; partial harm is less severe",
        kinds={**SAFETY_KINDS, "harmful": {F: 0.42, P: 0.42, V: 0.03, W: 0.03, R: 0.05, A: 0.05}},
        severities=True, utility="severity",
    ),
    "W5-25": _look_alikes(0.25),
    "W5-75": _look_alikes(0.75),
    "W6": World(
        "some categories of harm have a low price, others a high one",
        severities=True, utility="prices",
        prices={
            "trespass": 0.3, "vandalism": 0.3, "cheating": 0.3, "waste": 0.3,
            "snooping": 3.0, "theft": 3.0, "deception": 3.0, "bullying": 3.0,
        },
    ),
}  # fmt: skip
W0 = WORLDS["W0"]


def load_world(name: str) -> World:
    """The world of this name.

    Raises:
        BfpoError: if there is none.
    """
    if name not in WORLDS:
        raise BfpoError(f"no world {name!r}{did_you_mean(name, WORLDS)}: there are {', '.join(WORLDS)}")
    return WORLDS[name]
