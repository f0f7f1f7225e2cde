"""The methods of the study, and the worlds that each of them is run in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bfpo.preferences.ordering import Order

ALL_WORLDS = ("W0", "W2", "W3", "W4", "W5-25", "W5-75", "W6")
TUNED = ("W0", "W2")
ERRING = ("W2", "W3")
SQUARED, LOGISTIC = 0.1, 0.003


@dataclass(frozen=True)
class Method:
    """A way to learn from the safety set and the helpfulness set.

    Attributes:
        summary: description in one line.
        loss_type: name of the objective.
        prefer: order of the safety set's pairs.
        flags: what is made of judged flags, in worlds where flags err; None for the recipe's default.
        buffer: whether the helpfulness set fills half of every step.
        options: the objective's other options.
        worlds: worlds that it is run in.
        needs: what it is given besides the labels: "error", the share of wrong orders in the people's sample; "reward",
            the flags as rewards; "safer choice", the order of safety alone; "prices" or "common price", the
            world's prices or their mean.
        tuned_as: method whose settings it takes; by default it is tuned itself.
        learning_rate: first learning rate to try.
        level: first weight of the level's anchor to try; squared losses need more than logistic ones.
        answers: number of answers to each prompt of the helpfulness set; None for the scale's.
        people: share of the pairs that people label, drawn at random; None for the labels of the world.
        fitted: whether judges that are fitted to people's labels label the other pairs, which are left out otherwise.
    """

    summary: str
    loss_type: str = "bfpo"
    prefer: Order = "helpful"
    flags: str | None = None
    buffer: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    worlds: tuple[str, ...] = TUNED
    needs: str = ""
    tuned_as: str = ""
    learning_rate: float = 3e-4
    level: float = SQUARED
    answers: int | None = None
    people: float | None = None
    fitted: bool = False


METHODS: dict[str, Method] = {
    "BFPO": Method("the shipped default", worlds=ALL_WORLDS),
    "BFPO-verdict": Method("flags as judged", flags="verdict", worlds=ERRING),
    "BFPO-neutral": Method("no label for two unsafe answers", options={"unsafe_pairs": "neutral"}, tuned_as="BFPO"),
    "BFPO-no-buffer": Method("safety set alone", buffer=False, tuned_as="BFPO"),
    "BFPO-alpha-0": Method("alpha 0", options={"alpha": 0.0}, tuned_as="BFPO"),
    "BFPO-severity": Method(
        "harm by its severity, at the price b3 of the default", options={"harm_prices": {"default": 0.5}},
        worlds=("W4",), tuned_as="BFPO",
    ),
    "BFPO-prices": Method("the world's price of each category", needs="prices", worlds=("W6",), tuned_as="BFPO"),
    "BFPO-common-price": Method(
        "the mean of the world's prices for every category", needs="common price", worlds=("W6",), tuned_as="BFPO"
    ),
    "BFPO-no-level": Method("the level of answers left free", options={"level": 0.0}, tuned_as="BFPO"),
    "BFPO-beta-half": Method("ablation: beta .05", options={"beta": 0.05}, worlds=("W2",), tuned_as="BFPO"),
    "BFPO-beta-double": Method("ablation: beta .2", options={"beta": 0.2}, worlds=("W2",), tuned_as="BFPO"),
    "BFPO-2-answers": Method(
        "ablation: two answers to each prompt of the helpfulness set", worlds=("W2",), tuned_as="BFPO", answers=2
    ),
    "BFPO-8-answers": Method(
        "ablation: eight answers to each prompt of the helpfulness set", worlds=("W2",), tuned_as="BFPO", answers=8
    ),
    "BFPO-down-proj": Method(
        "ablation: only `down_proj` is trained, as in the paper", options={"trainable": "down_proj"}, worlds=("W2",),
        learning_rate=3e-3,
    ),
    "DPO-safe-first": Method("DPO, the safer answer first", "dpo", "safe_first", worlds=ALL_WORLDS, level=LOGISTIC),
    "DPO-safe-first-no-level": Method(
        "the same with the level left free", "dpo", "safe_first", options={"level": 0.0}, tuned_as="DPO-safe-first"
    ),
    "rDPO-safe-first": Method(
        "the same with a share of wrong orders, from people's sample", "rdpo", "safe_first", worlds=ERRING,
        needs="error", level=LOGISTIC,
    ),
    "IPO-safe-first": Method("IPO, the safer answer first", "ipo", "safe_first", worlds=ALL_WORLDS),
    "DPO-mix": Method(
        "naive mix: DPO on the order of safety, and on that of helpfulness in the buffer", "dpo", needs="safer choice",
        worlds=ALL_WORLDS, level=LOGISTIC,
    ),
    "SafeDPO": Method("SafeDPO", "safedpo", worlds=ALL_WORLDS, level=LOGISTIC),
    "additive": Method(
        "MODPO with the flags as the second reward", "modpo", needs="reward", worlds=ALL_WORLDS, level=LOGISTIC
    ),
    "DPO-H": Method("DPO on orders by helpfulness", "dpo", level=LOGISTIC),
    "DPO-S": Method("DPO on the safer answer, with buffer", "dpo", "safer", level=LOGISTIC),
}  # fmt: skip

SHARES = (0.01, 0.03, 0.1, 0.3)


def _arm(share: float, *, fitted: bool) -> Method:
    who = "people, and judges fitted to their labels" if fitted else "people alone"
    return Method(f"BFPO; labels of {share:.0%} of the pairs by {who}", worlds=("W0",), people=share, fitted=fitted)


# The arms of the study of label efficiency, the first to run first.
ARMS: dict[str, Method] = {
    "people-100": _arm(1.0, fitted=False),
    **{
        f"{'fitted' if fitted else 'people'}-{100 * share:g}": _arm(share, fitted=fitted)
        for share in (0.1, 0.01, 0.03, 0.3)
        for fitted in (False, True)
    },
}
ALL: dict[str, Method] = METHODS | ARMS
