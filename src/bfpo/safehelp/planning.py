"""What a run will measure, and what difference it could see: said before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass

from bfpo.safehelp.figures import HEADLINE, AnswerFigure
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.suites import Suite
from bfpo.statistics.comparing import minimum_detectable_effect

# Assumed of two models before anything is known: rates of 1/2, where a difference is hardest to see, and scores that
# correlate by 1/2 over prompts.
RATE, CORRELATION = 0.5, 0.5


@dataclass(frozen=True)
class Detectable:
    """One figure or task of a suite.

    Attributes:
        name: of the figure or task.
        prompts: it is about.
        clusters: independent ones among them; clusters count as perfectly alike.
        effect: the true difference between two models that a paired comparison finds in 80 % of the cases at p < .05.
    """

    name: str
    prompts: int
    clusters: int
    effect: float


def detectable(suite: Suite, measures_help: bool) -> list[Detectable]:
    """What the headline figures and the likelihood tasks of a suite can show.

    Args:
        suite: its items.
        measures_help: whether something measures how far answers help.
    """
    found = []
    for figure in HEADLINE.values():
        asked = [item for item in suite.prompts if _is_about(figure, item, suite.judge is not None, measures_help)]
        found += _effect(figure.name, [(item.task, item.cluster) for item in asked])
    for task in dict.fromkeys(item.task for item in suite.choices):
        found += _effect(task, [(task, item.cluster) for item in suite.choices if item.task == task])
    return found


def _is_about(figure: AnswerFigure, item: PromptItem, exact: bool, measures_help: bool) -> bool:
    measured = exact or (measures_help and item.reference is not None)
    return item.kind in figure.kinds and (measured or not figure.needs_help)


def _effect(name: str, clusters: list[tuple[str, str]]) -> list[Detectable]:
    count = len(set(clusters))
    if not count:
        return []
    return [Detectable(name, len(clusters), count, minimum_detectable_effect(count, RATE, CORRELATION))]
