"""Clusters of items: items with the same text depend on each other, like those of the same declared cluster."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from scipy.cluster.hierarchy import DisjointSet

from bfpo.safehelp.items import ChoiceItem, PromptItem
from bfpo.safehelp.records import GenerationRecord, LikelihoodRecord

Clustered = PromptItem | ChoiceItem | GenerationRecord | LikelihoodRecord


def clusters_of(items: Sequence[Clustered]) -> list[Hashable]:
    """The cluster of each item; clusters of a task or of several that share a prompt (and its choices) are one."""
    declared = [(item.task, item.cluster) for item in items]
    texts = [(item.prompt, getattr(item, "choices", ())) for item in items]
    return joined(declared, texts)


def joined(clusters: Sequence[Hashable], texts: Iterable[Hashable]) -> list[Hashable]:
    """The clusters, where those with a text in common are replaced by the first of them."""
    sets, owner, first = DisjointSet(clusters), dict[Hashable, Hashable](), dict[Hashable, Hashable]()
    for cluster, text in zip(clusters, texts, strict=True):
        sets.merge(owner.setdefault(text, cluster), cluster)
    return [first.setdefault(sets[cluster], cluster) for cluster in clusters]
