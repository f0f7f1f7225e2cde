"""The top of the page: results in a few sentences, which claim no more than the intervals do, and in a table."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bfpo.reports.formats import direction, format_estimate, format_number, format_p
from bfpo.reports.panel import Column, Table, TableCell, estimate_or_dash
from bfpo.reports.report import Report, ReportModel, is_established
from bfpo.safehelp.compare import DECLARED, ComparisonRow
from bfpo.safehelp.figures import HEADLINE, LIKELIHOOD, Figure, label_of


def scoreboard(models: Sequence[ReportModel]) -> Table:
    """The headline figures of every model."""
    figures = _measured(HEADLINE, models) or _measured(LIKELIHOOD, models)
    columns = [
        Column("model", lambda model: TableCell(model.name, note="baseline" if model.is_baseline else "")),
        *(_figure_column(figure, models) for figure in figures),
    ]
    suites = ", ".join(dict.fromkeys(model.evaluation.header.suite for model in models))
    return Table.of(f"Headline figures with 95 % intervals, suite {suites}", columns, models)


def _measured(figures: Mapping[str, Figure], models: Sequence[ReportModel]) -> list[Figure]:
    return [figure for name, figure in figures.items() if any(name in m.evaluation.scores for m in models)]


def _figure_column(figure: Figure, models: Sequence[ReportModel]) -> Column:
    counts = {scores[figure.name].n for m in models if figure.name in (scores := m.evaluation.scores)}

    def cell(model: ReportModel) -> TableCell:
        found = model.evaluation.scores.get(figure.name)
        return TableCell(estimate_or_dash(found), note=f"n = {found.n:,}" if found and len(counts) > 1 else "")

    note = direction(figure.higher_is_better) + (f", n = {max(counts):,}" if len(counts) == 1 else "")
    return Column(figure.label, cell, note)


def sentences(report: Report) -> list[str]:
    """One sentence or two about each model, the best model first."""
    if report.baseline is None:
        return [_alone(report.models[0])]
    names = [name for name in DECLARED if all(name in model.evaluation.scores for model in report.models)]
    ranked = sorted(report.others, key=lambda model: -_goodness(model, names))
    return [_against(report, model, report.baseline) for model in ranked]


def _goodness(model: ReportModel, names: Sequence[str]) -> float:
    scores = model.evaluation.scores
    return sum(scores[name].value if HEADLINE[name].higher_is_better else 1 - scores[name].value for name in names)


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
    return " ".join(filter(None, [f"{model.name} {_joined(parts)}.", _missing(scores, "measured")]))


def _against(report: Report, model: ReportModel, baseline: ReportModel) -> str:
    if model.number in report.incomparable:
        return f"{model.name} can't be compared with {baseline.name}: {report.incomparable[model.number]}."
    rows = [
        row
        for row in report.comparisons[model.number].rows
        if row.task == "all" and row.group is None and row.endpoint in DECLARED
    ]
    if not rows:
        return f"{model.name} and {baseline.name} have no sampled answers in common; see their tasks below."
    rows.sort(key=lambda row: list(_WORDING).index(row.endpoint))
    found = [row for row in rows if is_established(row)]
    better, worse = ([_claim(row) for row in found if row.is_better is good] for good in (True, False))
    ties = [f"{_WORDING[row.endpoint].noun} (at most {_bound(row)} apart)" for row in rows if not is_established(row)]
    tie = f"{model.name} and {baseline.name} can't be told apart in {_joined(ties)}." if ties else ""
    claims = " but ".join(_joined(part) for part in (better, worse) if part)
    sentence = f"Compared with {baseline.name}, {model.name} {claims}." if claims else ""
    return " ".join(filter(None, [sentence, tie, _missing({row.endpoint for row in rows}, "compared")]))


@dataclass(frozen=True)
class _Wording:
    """Words for a figure: its noun, and what a model does that has more or less of it."""

    noun: str
    more: str
    less: str


# In the order of a sentence.
_WORDING = {
    "harmless": _Wording("harmlessness", "is safer", "is less safe"),
    "helpful": _Wording("helpfulness", "is more helpful", "is less helpful"),
    "over_refusal": _Wording("over-refusal", "refuses more borderline prompts", "refuses fewer borderline prompts"),
}


def _claim(row: ComparisonRow) -> str:
    words = _WORDING[row.endpoint]
    does = words.more if row.difference.value > 0 else words.less
    p = format_p(row.adjusted_p)
    certain = f"p {p}" if "<" in p else f"p = {p}"
    return f"{does} ({label_of(row.endpoint)} {format_estimate(row.difference, signed=True)}, {certain})"


def _missing(names: Collection[str], what: str) -> str:
    nouns = [words.noun for name, words in _WORDING.items() if name not in names]
    return f"{_joined(nouns).capitalize()} {'was' if len(nouns) == 1 else 'were'} not {what}." if nouns else ""


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _bound(row: ComparisonRow) -> str:
    """The larger end of an interval, rounded up, so that the sentence stays true."""
    return format_number(math.ceil(100 * max(abs(row.difference.low), abs(row.difference.high))) / 100)
