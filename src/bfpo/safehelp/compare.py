"""Comparison of models prompt by prompt, with intervals and tests; incomparable runs are refused."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np

from bfpo.errors import BfpoError
from bfpo.safehelp.clusters import clusters_of
from bfpo.safehelp.figures import ANSWER_FIGURES, HEADLINE, AnswerFigure, items_of
from bfpo.safehelp.metrics import METRICS, Metric
from bfpo.safehelp.records import Evaluation, GenerationRecord, LikelihoodRecord, RunHeader
from bfpo.statistics.comparing import (
    at_least_some,
    benjamini_hochberg,
    compare_pairs,
    detectable_effect,
    holm,
    t_difference,
)
from bfpo.statistics.intervals import Estimate
from bfpo.statistics.resampling import REPLICATES, bootstrap_means, percentiles
from bfpo.statistics.seeds import compare_seeds

Family = Literal["declared", "exploratory", "category", "attack"]
# The primary endpoints of a comparison.
DECLARED = ("helpful", "harmless", "over_refusal")
# Figures compared in every category and under every attack, which are those of the page's charts.
_BY_GROUP = ("helpful", "attack_success", "over_refusal")
# Decoding settings that may differ between comparable runs: the sampling seed and batch limits.
# The place of a dial is the model's, which its digest tells.
_FREE_SETTINGS = ("seed", "batch_size", "max_tokens", "dial")


@dataclass(frozen=True)
class ComparisonRow:
    """One difference, the other model minus the baseline.

    Attributes:
        endpoint: name of the figure or metric.
        task: name of the task, "all" for headline figures.
        group: category or attack, if the row is about one.
        family: rows with which p is adjusted: Holm for "declared", Benjamini and Hochberg for each of the others.
        difference: difference in the figure's own units, with its 95 % interval.
        higher_is_better: the figure's direction.
        p: two-sided p-value for no difference.
        adjusted_p: p-value adjusted within the family.
        discordant: numbers of prompts that only the other and only the baseline has; None unless all values are 0 or 1.
        mde: minimum detectable effect, at 80 % power; None if there are too few prompts to find any.
        n: number of prompts.
        kind: kind of records, "generation" or "likelihood".
        correlation: correlation of the two models over prompts, if both vary.
        item_error: standard error from the prompts alone, with several training seeds.
        seed_error: standard error from the training seeds alone, with several training seeds.
    """

    endpoint: str
    task: str
    group: str | None
    family: Family
    difference: Estimate
    higher_is_better: bool
    p: float
    adjusted_p: float
    discordant: tuple[int, int] | None
    mde: float | None
    n: int
    kind: Literal["generation", "likelihood"] = "generation"
    correlation: float | None = None
    item_error: float | None = None
    seed_error: float | None = None

    @property
    def is_better(self) -> bool:
        """Whether the other model's value is the better one."""
        return (self.difference.value > 0) == self.higher_is_better and self.difference.value != 0


@dataclass(frozen=True)
class Comparison:
    """A model compared with a baseline; each may have several training seeds."""

    baseline: str
    other: str
    seeds: tuple[int, int]
    rows: tuple[ComparisonRow, ...]

    def row(self, endpoint: str) -> ComparisonRow:
        """The headline row of an endpoint.

        Raises:
            KeyError: if the runs didn't measure it.
        """
        for row in self.rows:
            if (row.endpoint, row.task, row.group) == (endpoint, "all", None):
                return row
        raise KeyError(endpoint)


def compare(baseline: Evaluation, other: Evaluation) -> Comparison:
    """Compare two runs (see `compare_models`)."""
    return compare_models([baseline], [[other]])[0]


def compare_models(baseline: Sequence[Evaluation], others: Sequence[Sequence[Evaluation]]) -> list[Comparison]:
    """Compare models with a baseline, each given as runs of one or several training seeds.

    Items are paired. With one run each, intervals reflect the choice of prompts; with several seeds also the variance
    between trainings. The declared endpoints of all models are one family for Holm's adjustment.

    Raises:
        BfpoError: if two runs can't be compared; the message names them and the reason.
    """
    for runs in (baseline, *others):
        _check_different(runs)
    for run in [*baseline[1:], *(run for runs in others for run in runs)]:
        reason = why_incomparable(baseline[0], run)
        if reason:
            raise BfpoError(f"{_name([run])} can't be compared with {_name(baseline)}: {reason}")
    found = [
        Comparison(_name(baseline), _name(runs), (len(baseline), len(runs)), tuple(_rows(baseline, runs)))
        for runs in others
    ]
    return _adjusted(found)


def _check_different(runs: Sequence[Evaluation]) -> None:
    """Refuse one run, or copies of it, in place of several training seeds."""
    for at, run in enumerate(runs):
        if any(run.header == other.header and run.generations == other.generations for other in runs[:at]):
            raise BfpoError(
                f"{_name([run])}: the same run is given twice, and several runs joined by commas are training seeds of "
                "one model; name each run once"
            )


def why_incomparable(first: Evaluation, second: Evaluation) -> str | None:
    """The reason why two runs can't be compared, without a full stop; None if they can.

    Chat templates may differ: they belong to the models, and both read the same prompts.
    """
    a, b = first.header, second.header
    if a.suite != b.suite:
        return f"their suites differ ({a.suite} and {b.suite})"
    prompts = _different_prompts(_prompts(first), _prompts(second))
    if prompts:
        return prompts
    for task in sorted({*a.prompts_digest} & {*b.prompts_digest}):
        if a.prompts_digest[task] != b.prompts_digest[task]:
            return f"their items of the task {task} differ in more than the prompts, such as references or clusters"
    for task in sorted({*a.sources} & {*b.sources}):
        if a.sources[task].get("examples_sha256") != b.sources[task].get("examples_sha256"):
            return f"the solved examples before their prompts of the task {task} differ"
    if a.judges != b.judges:
        return f"their judges or the judges' templates differ ({_judges(a)} and {_judges(b)})"
    if a.system_prompt != b.system_prompt:
        return f"their system prompts differ ({a.system_prompt!r} and {b.system_prompt!r})"
    for name in sorted({*a.decoding, *b.decoding} - {*_FREE_SETTINGS}):
        if a.decoding.get(name) != b.decoding.get(name):
            return f"their decoding differs ({name} {a.decoding.get(name)} and {b.decoding.get(name)})"
    return None


def _prompts(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Prompts (with kind, or choices and which are right) by task and item."""
    prompts: dict[str, dict[str, Any]] = {}
    for record in evaluation.generations:
        prompts.setdefault(record.task, {})[record.item] = (record.prompt, record.kind)
    for record in evaluation.likelihoods:
        prompts.setdefault(record.task, {})[f"likelihood {record.item}"] = (
            record.prompt, record.choices, record.correct, record.labels,
        )  # fmt: skip
    return prompts


def _different_prompts(first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]]) -> str | None:
    for task in sorted({*first, *second}):
        if task not in first or task not in second:
            return f"only one of them has the task {task}"
        a, b = first[task], second[task]
        missing = sum(item not in b for item in a) + sum(item not in a for item in b)
        changed = sum(a[item] != b[item] for item in a if item in b)
        if missing or changed:
            changes = f"{missing:,} in one only, {changed:,} with another text, kind or right choice"
            return f"their prompts of the task {task} differ ({changes})"
    return None


def _judges(header: RunHeader) -> str:
    return ", ".join(f"{judge.judge_id} {judge.template_digest[:8]}".strip() for judge in header.judges) or "none"


def _name(runs: Sequence[Evaluation]) -> str:
    return ", ".join(dict.fromkeys(run.model for run in runs))


def _rows(baseline: Sequence[Evaluation], other: Sequence[Evaluation]) -> list[ComparisonRow]:
    sampled = ([run.generations for run in baseline], [run.generations for run in other])
    rows = []
    for figure in HEADLINE.values():
        family: Family = "declared" if figure.name in DECLARED else "exploratory"
        rows += _figure_rows(sampled, figure, ("all", None, family))
    tasks = list(dict.fromkeys(record.task for record in baseline[0].generations))
    for task in tasks:
        own = _only(sampled, task=task)
        for figure in ANSWER_FIGURES.values():
            rows += _figure_rows(own, figure, (task, None, "exploratory"))
    by_group: tuple[Family, ...] = ("category", "attack")
    for field in by_group:
        groups = sorted({getattr(record, field) for record in baseline[0].generations} - {None})
        for group in groups:
            own = _only(sampled, **{field: group})
            for name in _BY_GROUP:
                rows += _figure_rows(own, ANSWER_FIGURES[name], ("all", group, field))
    scored = ([run.likelihoods for run in baseline], [run.likelihoods for run in other])
    wanted = dict.fromkeys(
        (score.task, score.metric) for score in baseline[0].tasks if score.kind == "likelihood"
    ) or dict.fromkeys((record.task, "acc") for record in baseline[0].likelihoods)
    for task, metric in wanted:
        if metric not in METRICS or not any(record.task == task for record in baseline[0].likelihoods):
            what = f"a score of the run ({metric[:40]!r} of the task {task[:40]!r}) has no items, or isn't known"
            raise BfpoError(f"{_name(baseline)}: {what}; copy the run again, or evaluate again")
    found = [_metric_row(scored, task, METRICS[metric]) for task, metric in wanted]
    return [*rows, *(replace(row, kind="likelihood") for row in found)]


_Sides = tuple[Sequence[Sequence[GenerationRecord]], Sequence[Sequence[GenerationRecord]]]
# Task, group and family of a row.
_Place = tuple[str, str | None, Family]


def _only(sides: _Sides, **wanted: str) -> _Sides:
    first, second = (
        [[r for r in records if all(getattr(r, name) == value for name, value in wanted.items())] for records in side]
        for side in sides
    )
    return first, second


def _figure_rows(sides: _Sides, figure: AnswerFigure, place: _Place) -> list[ComparisonRow]:
    """The row of a figure; none with fewer than two independent prompts, or if some run didn't measure it.

    Of a figure of faults, prompts are left out that some run leaves open.
    """
    first, second = ([items_of(records, figure.closed) for records in side] for side in sides)
    known = set(first[0].keys).intersection(*(run.keys for run in (*first, *second)))
    if figure.higher_is_better and any(len(run.keys) > len(known) for run in (*first, *second)):
        return []
    kept = [(key, of) for key, of in zip(first[0].keys, first[0].clusters, strict=True) if key in known]
    keys, clusters = [key for key, _ in kept], [of for _, of in kept]
    if len(set(clusters)) < 2:
        return []
    a, b = (np.array([run.in_order(keys) for run in side]) for side in (first, second))
    return [_row(a, b, clusters, figure, place)]


def _row(
    a: np.ndarray, b: np.ndarray, clusters: Sequence[Hashable], figure: AnswerFigure | Metric, place: _Place
) -> ComparisonRow:
    """Compare [S, N] values of the baseline with [S', N] of the other."""
    if len(a) == len(b) == 1:
        paired = compare_pairs(b[0].tolist(), a[0].tolist(), clusters)
        return ComparisonRow(
            figure.name, *place, paired.difference, figure.higher_is_better, paired.p, paired.p, paired.discordant,
            paired.detectable, a.shape[1], correlation=paired.correlation,
        )  # fmt: skip
    seeds = compare_seeds(b, a, clusters)
    return ComparisonRow(
        figure.name, *place, seeds.difference, figure.higher_is_better, seeds.p, seeds.p, None,
        seeds.detectable, a.shape[1], item_error=seeds.item_error, seed_error=seeds.seed_error,
    )  # fmt: skip


def _metric_row(
    sides: tuple[Sequence[Sequence[LikelihoodRecord]], Sequence[Sequence[LikelihoodRecord]]], task: str, metric: Metric
) -> ComparisonRow:
    first, second = (
        [{record.item: metric.parts(record) for record in records if record.task == task} for records in side]
        for side in sides
    )
    own = [record for record in sides[0][0] if record.task == task]
    clusters = clusters_of(own)
    a, b = (np.array([[run[record.item] for record in own] for run in side]) for side in (first, second))
    if metric.is_mean and len(set(clusters)) > 1:
        return _row(a[:, :, 0], b[:, :, 0], clusters, metric, (task, None, "exploratory"))
    return _bootstrap_row(a.mean(axis=0), b.mean(axis=0), clusters, metric, task)


def _bootstrap_row(
    a: np.ndarray, b: np.ndarray, clusters: Sequence[Hashable], metric: Metric, task: str
) -> ComparisonRow:
    """Compare functions of means by the cluster bootstrap of their difference; parts are averaged over seeds."""
    width = a.shape[1]

    def difference(means: np.ndarray) -> np.ndarray:
        return np.array([metric.combine(*row[width:]) - metric.combine(*row[:width]) for row in means.tolist()])

    # These figures are in [-1, 1].
    largest = 2.0
    both = np.concatenate([a, b], axis=1)
    drawn = difference(bootstrap_means(both, clusters, 0, REPLICATES))
    value, error, count = float(difference(both.mean(axis=0, keepdims=True))[0]), float(drawn.std()), len(set(clusters))
    found = Estimate(value, *percentiles(drawn), len(a))
    p = min(1.0, 2 * max(min(float((drawn <= 0).mean()), float((drawn >= 0).mean())), 1 / REPLICATES))
    if found.low == found.high:
        # A cluster may move the difference by all of that.
        error = largest * at_least_some(0.0, count)
        found, p = t_difference(value, error, max(1, count - 1), len(a), bounded=False)
    return ComparisonRow(
        metric.name, task, None, "exploratory", found, metric.higher_is_better, p, p, None,
        detectable_effect(error, largest), len(a),
    )  # fmt: skip


def _adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Add adjusted p-values: Holm over the declared rows of all models, Benjamini-Hochberg over each other family."""
    rows = [row for comparison in comparisons for row in comparison.rows]
    for family in get_args(Family):
        own = [at for at, row in enumerate(rows) if row.family == family]
        adjust = holm if family == "declared" else benjamini_hochberg
        for at, adjusted in zip(own, adjust([rows[at].p for at in own]), strict=True):
            rows[at] = replace(rows[at], adjusted_p=adjusted)
    rest = iter(rows)
    return [replace(own, rows=tuple(islice(rest, len(own.rows)))) for own in comparisons]
