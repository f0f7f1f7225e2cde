"""The safety set of a world, with the labels that a team would have: judged flags, and people's on a tenth."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from bfpo.judges.preference import AnswerPair
from bfpo.judges.verdict import Exchange
from bfpo.labeling.filling import label_preferences
from bfpo.microworld.data import safety_set
from bfpo.microworld.oracle import judge
from bfpo.microworld.worlds import World
from bfpo.preferences.label_columns import JUDGE, PEOPLE, RANDOM, UNKNOWN
from studies.fitted_judges import FittedOrder, fit_safety

PEOPLES_SHARE = 0.1
_BY_PEOPLE: dict[str, Any] = {
    "chosen_is_better": 1.0,
    "labelled_by": {"chosen": RANDOM, "rejected": RANDOM, "order": PEOPLE},
    "judged_as": None,
}
_OPEN: dict[str, Any] = {
    "chosen_is_safe": None,
    "rejected_is_safe": None,
    "chosen_is_better": None,
    "labelled_by": {"chosen": UNKNOWN, "rejected": UNKNOWN, "order": UNKNOWN},
    "judged_as": None,
}
Row = dict[str, Any]


def labeled_set(world: World, count: int, seed: int) -> list[Row]:
    """Pairs of a world in the columns of PKU-SafeRLHF, or, if its flags err, in those that ``bfpo label`` writes.

    People label both answers of a random tenth of the pairs, without error. The orders by helpfulness are people's.
    """
    rows = safety_set(count, seed, world=world)
    if not any(world.flag_errors):
        return rows
    asked = _asked(count, seed)
    return [as_pair(row, by_people=at in asked) for at, row in enumerate(rows)]


def _asked(count: int, seed: int) -> set[int]:
    """The pairs that people label."""
    return set(random.Random(f"people {seed}").sample(range(count), round(PEOPLES_SHARE * count)))


def as_pair(row: Row, *, by_people: bool = False) -> Row:
    """A row in canonical columns, with the judged flags or people's."""
    better = row["better_response_id"]
    pair: Row = {
        "prompt": row["prompt"],
        "chosen": row[f"response_{better}"],
        "rejected": row[f"response_{1 - better}"],
        "labelled_by": {"order": PEOPLE},
        "judged_as": {},
    }
    for name, place in (("chosen", better), ("rejected", 1 - better)):
        judged = float(row[f"is_response_{place}_safe"])
        pair[f"{name}_is_safe"] = float(_is_safe(row, place)) if by_people else judged
        pair["labelled_by"][name] = RANDOM if by_people else JUDGE
        pair["judged_as"][name] = {"verdict": judged, "probability": None}
    return pair


def _is_safe(row: Row, place: int) -> bool:
    return judge(row["prompt"], row[f"response_{place}"]).is_safe


def partly_labeled(rows: Sequence[Row], share: float, seed: int, *, fitted: bool) -> list[Row]:
    """Pairs of which people label a random share, and judges fitted to these the others, which are left out without.

    Neither judge knows another label. What the judge of safety says of people's pairs is out of fold.
    """
    pairs = [as_pair(row) for row in rows]
    asked = set(random.Random(f"share {seed}").sample(range(len(pairs)), round(share * len(pairs))))
    known = [pairs[at] | _BY_PEOPLE for at in sorted(asked)]
    if not fitted:
        return known
    judge = fit_safety(
        [Exchange(row["prompt"], row[name]) for row in known for name in ("chosen", "rejected")],
        [bool(row[f"{name}_is_safe"]) for row in known for name in ("chosen", "rejected")],
    )
    order = FittedOrder.fit([AnswerPair(row["prompt"], row["chosen"], row["rejected"]) for row in known])
    left = [row | _OPEN for at, row in enumerate(pairs) if at not in asked]
    return [dict(row) for row in label_preferences([*known, *left], [judge], order_judge=order, seed=seed).rows]


def with_rewards(rows: Sequence[Row]) -> list[Row]:
    """Pairs whose flags are also the rewards that MODPO reads."""
    return [
        row | {"chosen_reward": row["chosen_is_safe"], "rejected_reward": row["rejected_is_safe"]}
        for row in map(_plain, rows)
    ]


def by_safer_choice(rows: Sequence[Row], seed: int) -> list[Row]:
    """Pairs in the order of safety, as far as their labels tell it.

    The safe answer is first; of two unsafe ones the less helpful, and of two safe ones a random one.
    """
    rng = random.Random(f"safer {seed}")
    ordered = []
    for row in map(_plain, rows):
        flags = row["chosen_is_safe"], row["rejected_is_safe"]
        swap = flags[0] < flags[1] if flags[0] != flags[1] else not flags[0] or rng.random() < 0.5
        first, second = ("rejected", "chosen") if swap else ("chosen", "rejected")
        ordered.append({"prompt": row["prompt"], "chosen": row[first], "rejected": row[second]})
    return ordered


def wrong_orders(world: World, count: int, seed: int) -> float:
    """Share of the people's sample whose safe-first order by judged flags is wrong."""
    rows = safety_set(count, seed, world=world)
    asked = sorted(_asked(count, seed))
    judged = [(row["is_response_0_safe"], row["is_response_1_safe"]) for row in rows]
    true = {at: (_is_safe(rows[at], 0), _is_safe(rows[at], 1)) for at in asked}
    better = [row["better_response_id"] for row in rows]
    return sum(_safe_first(judged[at], better[at]) != _safe_first(true[at], better[at]) for at in asked) / len(asked)


def _safe_first(flags: tuple[bool, bool], better: int) -> int:
    return better if flags[0] == flags[1] else flags.index(True)


def _plain(row: Row) -> Row:
    """A pair's texts and flags, without where they come from."""
    pair = row if "chosen" in row else as_pair(row)
    return {name: pair[name] for name in ("prompt", "chosen", "rejected", "chosen_is_safe", "rejected_is_safe")}
