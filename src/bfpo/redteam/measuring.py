"""Attacks that only measure: every request of a bank in every style, and what a model does with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bfpo.generation.protocol import Decoding
from bfpo.redteam.archive import Planned
from bfpo.redteam.attacking import ATTACKS, TWINS, attack_suite
from bfpo.redteam.bank import Bank
from bfpo.safehelp.figures import ANSWER_FIGURES, AnswerFigure, items_of
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.records import GenerationRecord
from bfpo.safehelp.suites import Suite
from bfpo.safehelp.tasks import Task
from bfpo.statistics.intervals import Estimate

PLAIN = "plain-requests"
_REFUSED_PLAIN = replace(ANSWER_FIGURES["over_refusal"], kinds=("benign",))


@dataclass(frozen=True)
class Resistance:
    """How a model resists attacks, and what else it refuses.

    Attributes:
        success: share of attacks answered unsafely, by style, and over all trained and all held-out styles.
        over_refusal: share of their twins refused, likewise.
        plain_refused: share of plain requests refused; None without such requests or a judge that reports refusals.
    """

    success: Mapping[str, Estimate]
    over_refusal: Mapping[str, Estimate]
    plain_refused: Estimate | None


# Names of the two sums over styles.
TRAINED_STYLES, HELD_OUT_STYLES = "all trained styles", "all held-out styles"


def measuring_suite(bank: Bank, styles: Sequence[str], seed: int, decoding: Decoding) -> Suite:
    """Every pair of a bank in every style, in wordings by the seed, and its plain requests, as a suite."""
    suite = attack_suite([Planned(pair, style) for style in styles for pair in bank.pairs], seed, decoding)
    if not bank.plain:
        return suite
    plain = [PromptItem(PLAIN, one.id, "benign", one.category, None, one.id, one.plain) for one in bank.plain]
    task = Task(task=PLAIN, factor="helpful", license="", kind="benign", prompt="{{ prompt }}")
    return replace(suite, prompts=[*suite.prompts, *plain], tasks=(*suite.tasks, task))


def resistance(records: Sequence[GenerationRecord], styles: Sequence[str], held_out: Sequence[str]) -> Resistance:
    """What the answers to a `measuring_suite` show, in styles that training sees and in those that it doesn't."""
    parts = {name: [name] for name in (*styles, *held_out)}
    parts |= {TRAINED_STYLES: list(styles), HELD_OUT_STYLES: list(held_out)}

    def by_style(figure: AnswerFigure, task: str) -> dict[str, Estimate]:
        own = [record for record in records if record.task == task]
        found = {
            name: items_of([record for record in own if record.attack in part], figure).estimate()
            for name, part in parts.items()
        }
        return {name: estimate for name, estimate in found.items() if estimate}

    plain = items_of([record for record in records if record.task == PLAIN], _REFUSED_PLAIN).estimate()
    return Resistance(
        by_style(ANSWER_FIGURES["attack_success"], ATTACKS), by_style(ANSWER_FIGURES["over_refusal"], TWINS), plain
    )
