"""Minimum detectable differences between two models on a suite, before any run."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from bfpo.safehelp.clusters import clusters_of
from bfpo.safehelp.figures import HEADLINE, AnswerFigure
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.suites import Suite
from bfpo.statistics.comparing import minimum_detectable_effect
from bfpo.statistics.intervals import cluster_codes, effective_clusters

# Assumed rate of both models, the hardest case, and assumed correlation of their scores over prompts.
RATE, CORRELATION = 0.5, 0.5


@dataclass(frozen=True)
class Detectable:
    """Minimum detectable effect in one figure or task of a suite.

    Attributes:
        name: name of the figure or task.
        prompts: number of its prompts or items.
        clusters: number of their clusters; items in a cluster count as perfectly correlated, and a large cluster weighs
            more than a small one.
        effect: true difference between two models that a paired comparison finds with 80 % power at p < .05; None if
            there are too few prompts to find any.
    """

    name: str
    prompts: int
    clusters: int
    effect: float | None


def detectable(suite: Suite, measures_help: bool) -> list[Detectable]:
    """Minimum detectable effects in the headline figures and the likelihood tasks of a suite.

    ``measures_help`` is whether a helpfulness judge compares answers with references.
    """
    found = []
    for figure in HEADLINE.values():
        counted = [item for item in suite.prompts if _covers(figure, item, suite.judge is not None, measures_help)]
        found += _effect(figure.name, clusters_of(counted))
    for task in dict.fromkeys(item.task for item in suite.choices):
        found += _effect(task, clusters_of([item for item in suite.choices if item.task == task]))
    return found


def _covers(figure: AnswerFigure, item: PromptItem, exact: bool, measures_help: bool) -> bool:
    measured = exact or (measures_help and item.reference is not None)
    return item.kind in figure.kinds and (measured or not figure.needs_help)


def _effect(name: str, clusters: Sequence[Hashable]) -> list[Detectable]:
    if not clusters:
        return []
    independent = effective_clusters(cluster_codes(clusters, len(clusters)))
    effect = minimum_detectable_effect(independent, RATE, CORRELATION)
    return [Detectable(name, len(clusters), len(set(clusters)), effect)]
