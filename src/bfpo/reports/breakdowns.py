"""Breakdowns of records by set, category, attack, length and certainty, and of training logs by safety cell."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bfpo.reports.report import ReportModel
from bfpo.safehelp.answer_kinds import ANSWER_KINDS
from bfpo.safehelp.clusters import clusters_of
from bfpo.safehelp.figures import ANSWER_FIGURES, AnswerFigure, items_of
from bfpo.safehelp.records import KINDS, GenerationRecord
from bfpo.statistics.intervals import Estimate, mean_interval, rate_interval

_APOLOGY = re.compile(
    r"\W*(?:(?:i\W?m|i am|we\W?re|we are)\s+)?(?:(?:so|very|truly|really|terribly)\s+)?(?:sorry\b|apologies\b)"
    r"|\W*(?:i|we|my)\s+(?:\w+\s+)?apologi",
    re.IGNORECASE,
)


def starts_with_apology(answer: str) -> bool:
    """Whether an answer starts with an apology in English."""
    return _APOLOGY.match(answer) is not None


APOLOGIES = AnswerFigure(
    "apologies", "start with an apology", "helpful", False, "share of answers that start with an apology", KINDS,
    lambda record: starts_with_apology(record.answer),
)  # fmt: skip
TRUNCATED = AnswerFigure(
    "truncated", "cut at the limit", "helpful", False, "share of answers cut at the token limit", KINDS,
    lambda record: record.truncated,
)  # fmt: skip


def count_of(records: Sequence[GenerationRecord], figure: str, n: int) -> str:
    """``20``, the number of prompts that a figure counts; ``20 of 60 rated`` if it leaves some out."""
    found = ANSWER_FIGURES.get(figure)
    if found is None:
        return f"{n:,}"
    rated, total = (len(items_of(records, one).keys) for one in (found, replace(found, covers=lambda record: True)))
    return f"{n:,} of {total:,} rated" if rated < total else f"{n:,}"


def kinds_by_set(models: Sequence[ReportModel]) -> list[tuple[str, list[tuple[ReportModel, Counter[str]]]]]:
    """The title of each set (a task's prompts of one kind), with each model's answer counts by kind."""
    found: dict[tuple[str, str], dict[int, Counter[str]]] = {}
    for model in models:
        for record in model.evaluation.generations:
            counts = found.setdefault((record.task, record.kind), {}).setdefault(model.number, Counter())
            counts[record.answer_kind] += 1
    return [
        (
            f"{task}: {kind} prompts, {max(counts.total() for counts in by_model.values()):,} answers",
            [(model, by_model[model.number]) for model in models if model.number in by_model],
        )
        for (task, kind), by_model in found.items()
    ]


def rates_by(
    models: Sequence[ReportModel],
    figure: AnswerFigure,
    group: Callable[[GenerationRecord], str | None] = lambda record: "all",
) -> dict[str, dict[int, Estimate]]:
    """A figure in each group of prompts, by the model's number; ``group`` is None for records to leave out."""
    rates: dict[str, dict[int, Estimate]] = {}
    for model in models:
        groups: dict[str, list[GenerationRecord]] = {}
        for record in model.evaluation.generations:
            name = group(record)
            if name is not None:
                groups.setdefault(name, []).append(record)
        for name, records in groups.items():
            estimate = items_of(records, figure).estimate()
            if estimate is not None:
                rates.setdefault(name, {})[model.number] = estimate
    return rates


def mean_tokens(records: Iterable[GenerationRecord]) -> Estimate | None:
    """Mean length in tokens with its t interval over clusters; None with fewer than two of known length."""
    known = [record for record in records if record.tokens is not None]
    clusters = clusters_of(known)
    return mean_interval([float(record.tokens or 0) for record in known], clusters) if len(set(clusters)) > 1 else None


def help_by_length(records: Iterable[GenerationRecord], parts: int = 4) -> list[tuple[float, Estimate]]:
    """Mean length and mean helpfulness in equal parts of the answers, from the shortest to the longest.

    Refusals, which are short and never help, are left out. Empty if there are too few answers.
    """
    measured = [
        record
        for record in records
        if record.p_help is not None and record.tokens is not None and not ANSWER_KINDS[record.answer_kind].is_refusal
    ]
    lengths, helps = (np.array([getattr(record, name) for record in measured]) for name in ("tokens", "p_help"))
    clusters = clusters_of(measured)
    if len(measured) < 10 * parts or len(set(lengths.tolist())) < parts:
        return []
    # Answers of one length are split at random: in the order of the outcome, or of the sets, they would feign a trend.
    ties = np.random.default_rng(0).random(len(measured))
    split = np.array_split(np.lexsort((ties, lengths)), parts)
    return [
        (float(lengths[part].mean()), rate_interval(helps[part].tolist(), [clusters[at] for at in part]))
        for part in split
    ]


def certainty(records: Iterable[GenerationRecord]) -> list[float]:
    """Share of answers in each tenth of the primary judge's P(safe); empty without probabilities."""
    tenths = Counter(min(9, int(10 * p)) for p, _ in _p_safe(records))
    return [tenths[tenth] / tenths.total() for tenth in range(10)] if tenths else []


def agreement_by_certainty(records: Iterable[GenerationRecord], at_least: int = 10) -> dict[float, Estimate]:
    """Share of answers that the second judge labels safe, by the mean P(safe) in each tenth of it."""
    tenths: dict[int, list[tuple[float, GenerationRecord]]] = {}
    for p_safe, record in _p_safe(records):
        if len(record.verdicts) > 1 and record.verdicts[1].label != "unparsed":
            tenths.setdefault(min(9, int(10 * p_safe)), []).append((p_safe, record))
    found: dict[float, Estimate] = {}
    for _, pairs in sorted(tenths.items()):
        if len(pairs) >= at_least:
            own = [record for _, record in pairs]
            safe = [float(record.verdicts[1].label == "safe") for record in own]
            found[sum(p for p, _ in pairs) / len(pairs)] = rate_interval(safe, clusters_of(own))
    return found


def gaps_of(training: Mapping[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """(step, gap) for every safety cell of a training run's ``run.json``; empty if its objective has no target."""
    gaps: dict[str, list[tuple[int, float]]] = {}
    for entry in training.get("log", ()):
        for key, value in entry.items():
            parts = key.split("/")
            if len(parts) == 3 and parts[0] == "cells" and parts[2] == "gap":
                gaps.setdefault(parts[1], []).append((int(entry["step"]), float(value)))
    return gaps


def _p_safe(records: Iterable[GenerationRecord]) -> Iterable[tuple[float, GenerationRecord]]:
    for record in records:
        p_safe = record.verdicts[0].p_safe if record.verdicts else None
        if p_safe is not None:
            yield p_safe, record
