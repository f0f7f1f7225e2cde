"""`Report`: models with unique names and colors, and their comparisons with the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from bfpo.errors import BfpoError, did_you_mean
from bfpo.reports.attacked import RedTeamed
from bfpo.reports.drawing import BASELINE_MARKER, COLORS, MARKERS, NEUTRAL
from bfpo.reports.formats import printable
from bfpo.safehelp.compare import Comparison, ComparisonRow, compare_models, why_incomparable
from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.training_records import training_record


@dataclass(frozen=True)
class ReportModel:
    """A model in a report.

    Attributes:
        evaluation: its evaluation.
        name: its name, unique in the report and printable.
        number: its position in the report, from 0.
        hue: its position among the models that have a color.
        is_baseline: whether it is the baseline, which is drawn in gray.
    """

    evaluation: Evaluation
    name: str
    number: int
    hue: int
    is_baseline: bool

    @property
    def color(self) -> str:
        """Its color in plots."""
        return NEUTRAL if self.is_baseline else COLORS[self.hue % len(COLORS)]

    @property
    def marker(self) -> str:
        """Its marker in plots."""
        return BASELINE_MARKER if self.is_baseline else MARKERS[self.hue % len(MARKERS)]


@dataclass(frozen=True)
class Report:
    """Content of a report.

    Attributes:
        title: heading of the page.
        folder: folder of the page and its plots.
        models: the models.
        comparisons: comparison with the baseline, by the model's number.
        incomparable: reason why the model can't be compared with the baseline, by its number.
        training: ``run.json`` of the model's training, by its number.
        context: more settings to list, by name.
        red_teamed: results of red teaming; None without.
    """

    title: str
    folder: Path
    models: Sequence[ReportModel]
    comparisons: Mapping[int, Comparison] = field(default_factory=dict)
    incomparable: Mapping[int, str] = field(default_factory=dict)
    training: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    context: Mapping[str, str] = field(default_factory=dict)
    red_teamed: RedTeamed | None = None

    @property
    def page(self) -> Path:
        """The page, one HTML file."""
        return self.folder / "report.html"

    @property
    def plots(self) -> Path:
        """The folder with every plot as PNG and SVG."""
        return self.folder / "plots"

    @property
    def baseline(self) -> ReportModel | None:
        """The baseline; None if there is only one model."""
        return next((model for model in self.models if model.is_baseline), None)

    @property
    def others(self) -> list[ReportModel]:
        """All models except the baseline."""
        return [model for model in self.models if not model.is_baseline]

    def established(self, group: str, endpoint: str, family: str) -> frozenset[int]:
        """Numbers of the models whose rate in a category or attack significantly differs from the baseline's."""
        return frozenset(
            number
            for number, comparison in self.comparisons.items()
            for row in comparison.rows
            if row.family == family and row.group == group and row.endpoint == endpoint and is_established(row)
        )


def is_established(row: ComparisonRow) -> bool:
    """Whether a difference's interval excludes 0 and its p-value, adjusted within its family, is below .05."""
    excludes = row.difference.low > 0 or row.difference.high < 0
    return excludes and row.adjusted_p < 0.05


def report_models(evaluations: Sequence[Evaluation], baseline: str | int | None = None) -> list[ReportModel]:
    """Give every evaluation a unique name, and find the baseline by its name or position; by default the first.

    Raises:
        BfpoError: if there is no evaluation, or no model of that name.
    """
    if not evaluations:
        raise BfpoError("a report needs at least one evaluation; name the folders that 'bfpo evaluate' wrote")
    names = [evaluation.model for evaluation in evaluations]
    if isinstance(baseline, str) and baseline not in names:
        raise BfpoError(
            f"no evaluation of a model {baseline!r}{did_you_mean(baseline, names)}; there are {', '.join(names)}"
        )
    start = names.index(baseline) if isinstance(baseline, str) else baseline or 0
    several, models = len(names) > 1, []
    for number, (evaluation, name) in enumerate(zip(evaluations, _unique(names), strict=True)):
        hue = number - (several and number > start)
        models.append(ReportModel(evaluation, name, number, hue, several and number == start))
    return models


def _unique(names: Sequence[str]) -> list[str]:
    """Printable names, of which those that repeat have a number that no other name has."""
    own, found = [printable(name) for name in names], list[str]()
    for name in own:
        free = (f"{name} ({number})" for number in count(2))
        found.append(name if name not in found else next(one for one in free if one not in (*own, *found)))
    return found


def prepare_report(
    evaluations: Sequence[Evaluation],
    folder: Path,
    *,
    title: str = "Safe and helpful?",
    baseline: str | int | None = None,
    context: Mapping[str, str] | None = None,
    red_teamed: RedTeamed | None = None,
) -> Report:
    """Compare each model with the baseline and read its training record; see `bfpo.reports.page.build_report`."""
    models = report_models(evaluations, baseline)
    start = next((model for model in models if model.is_baseline), None)
    others = [model for model in models if start and model is not start]
    reasons = {m.number: why_incomparable(start.evaluation, m.evaluation) for m in others if start}
    incomparable = {number: reason for number, reason in reasons.items() if reason}
    rivals = [model for model in others if model.number not in incomparable]
    found = compare_models([start.evaluation], [[m.evaluation] for m in rivals]) if start and rivals else []
    comparisons = {model.number: comparison for model, comparison in zip(rivals, found, strict=True)}
    training = {m.number: record for m in models if (record := training_record(m.evaluation.header.model_path))}
    return Report(title, folder, models, comparisons, incomparable, training, dict(context or {}), red_teamed)
