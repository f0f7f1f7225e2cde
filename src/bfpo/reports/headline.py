"""The top of the page: results in a few sentences, which claim no more than the intervals do, and in a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bfpo.reports.formats import direction, format_estimate, format_number
from bfpo.reports.panel import Column, Table, TableCell, estimate_or_dash
from bfpo.reports.report import Report, ReportModel, is_established
from bfpo.safehelp.compare import ComparisonRow
from bfpo.safehelp.figures import HEADLINE, LIKELIHOOD, Figure
from bfpo.statistics.intervals import Estimate

_NOUNS = {"harmless": "harmlessness", "helpful": "helpfulness"}


def scoreboard(models: Sequence[ReportModel]) -> Table:
    """The headline figures of every model."""
    figures = _measured(HEADLINE, models) or _measured(LIKELIHOOD, models)
    columns = [
        Column("model", lambda model: TableCell(model.name, note="baseline" if model.is_baseline else "")),
        *(_figure_column(figure, models) for figure in figures),
    ]
    suite = models[0].evaluation.header.suite
    return Table.of(f"Headline figures with 95 % intervals, suite {suite}", columns, models)


def _measured(figures: Mapping[str, Figure], models: Sequence[ReportModel]) -> list[Figure]:
    return [figure for name, figure in figures.items() if any(name in m.evaluation.scores for m in models)]


def _figure_column(figure: Figure, models: Sequence[ReportModel]) -> Column:
    n = max(scores[figure.name].n for m in models if figure.name in (scores := m.evaluation.scores))
    note = f"{direction(figure.higher_is_better)}, n = {n:,}"
    return Column(figure.label, lambda model: estimate_or_dash(model.evaluation.scores.get(figure.name)), note)


def sentences(report: Report) -> list[str]:
    """One sentence about each model, the best model first."""
    if report.baseline is None:
        return [_alone(report.models[0])]
    ranked = sorted(report.others, key=lambda model: -_sum(model))
    return [_against(report, model, report.baseline) for model in ranked]


def _sum(model: ReportModel) -> float:
    scores = model.evaluation.scores
    return sum(scores[name].value for name in _NOUNS if name in scores)


def _alone(model: ReportModel) -> str:
    scores, parts = model.evaluation.scores, []
    if "harmless" in scores:
        parts.append(f"answers {format_estimate(scores['harmless'])} of the harmful prompts safely")
    if "helpful" in scores:
        parts.append(f"scores {format_estimate(scores['helpful'])} for helpfulness on the others")
    if "over_refusal" in scores:
        parts.append(f"refuses {format_estimate(scores['over_refusal'])} of the borderline prompts")
    if not parts:
        return f"{model.name}: no answers were sampled, so this page shows only the tasks measured by likelihood."
    text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return f"{model.name} {text}."


def _against(report: Report, model: ReportModel, baseline: ReportModel) -> str:
    if model.number in report.incomparable:
        return f"{model.name} can't be compared with {baseline.name}: {report.incomparable[model.number]}."
    rows = {
        row.endpoint: row
        for row in report.comparisons[model.number].rows
        if row.task == "all" and row.group is None and row.endpoint in (*_NOUNS, "over_refusal")
    }
    if not rows:
        return f"{model.name} and {baseline.name} have no sampled answers in common; see their tasks below."
    primary = [(name, rows[name]) for name in _NOUNS if name in rows]
    found = [(name, row) for name, row in primary if is_established(row)]
    bounds = [f"{_bound(row)} in {_NOUNS[name]}" for name, row in primary if not is_established(row)]
    parts = []
    for name, row in found:
        more = "more" if row.difference.value > 0 else "less"
        than = "" if parts else f" than {baseline.name}"
        parts.append(f"{more} {name}{than} by {_size(row.difference)}")
    if parts:
        sentence = f"{model.name} is {' and '.join(parts)}"
        sentence += "".join(f"; they differ by at most {bound}" for bound in bounds)
    else:
        sentence = f"{model.name} shows no clear difference from {baseline.name}: at most {' and '.join(bounds)}"
    refusal = rows.get("over_refusal")
    if refusal and is_established(refusal):
        more = "more" if refusal.difference.value > 0 else "fewer"
        sentence += f"; it refuses {more} borderline prompts, by {_size(refusal.difference)}"
    return f"{sentence}."


def _size(difference: Estimate) -> str:
    low, high = sorted((abs(difference.low), abs(difference.high)))
    return format_estimate(Estimate(abs(difference.value), low, high, difference.n))


def _bound(row: ComparisonRow) -> str:
    """The larger end of an interval, rounded up, so that the sentence stays true."""
    return format_number(math.ceil(100 * max(abs(row.difference.low), abs(row.difference.high))) / 100)
