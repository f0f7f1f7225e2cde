"""Result panels: headline figures, differences, kinds of answers, categories, attacks, likelihood tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bfpo.reports.breakdowns import count_of, kinds_by_set, rates_by
from bfpo.reports.charts import ChartRow, heat_plot, kinds_plot, rates_plot
from bfpo.reports.formats import (
    direction,
    format_detectable,
    format_estimate,
    format_number,
    format_p,
    value_and_interval,
)
from bfpo.reports.panel import Column, Panel, Table, TableCell, Tone, estimate_or_dash, model_columns, rates_table
from bfpo.reports.report import Report, ReportModel, is_established
from bfpo.reports.scatter import Point, frontier, headline_plot, refusal_plot
from bfpo.safehelp.answer_kinds import ANSWER_KINDS
from bfpo.safehelp.compare import ComparisonRow
from bfpo.safehelp.figures import ANSWER_FIGURES, CORRECTED, HEADLINE, LIKELIHOOD, AnswerFigure, label_of
from bfpo.safehelp.plane import joint, p_dominates
from bfpo.safehelp.records import Evaluation, TaskScore
from bfpo.statistics.intervals import Estimate

TOO_FEW = 200
ATTACK_SUCCESS, OVER_REFUSAL = ANSWER_FIGURES["attack_success"], HEADLINE["over_refusal"]


def headline(report: Report) -> Panel:
    """Helpfulness against harmlessness, with joint regions and dominance probabilities."""
    anchor, title = "headline", "Helpful and harmless"
    plots, choices = [], []
    sampled = [replace(p, outline=_region(p.model)) for p in _points(report, "")]
    likelihood = _points(report, "likelihood/")
    if sampled:
        choices.append("sampled answers")
        plots.append(headline_plot("headline", sampled, HEADLINE["helpful"], HEADLINE["harmless"]))
    if likelihood:
        choices.append("likelihood of given answers")
        figures = LIKELIHOOD["likelihood/helpful"], LIKELIHOOD["likelihood/harmless"]
        plots.append(headline_plot("headline-likelihood", likelihood, *figures))
    if not plots:
        return Panel(anchor, title, absent="no run on this page measured both helpfulness and harmlessness")
    lead = "Up and to the right is better."
    if any(point.outline is not None for point in sampled):
        lead += " Shaded areas are joint 95 % confidence regions of both figures."
    if any(point.outline is None for point in (*sampled, *likelihood)):
        lead += " Crosses are 95 % intervals of each figure."
    if len(report.models) > 1:
        best = ", ".join(point.model.name for point in frontier(sampled or likelihood))
        lead += f" On the frontier, which no other model matches or beats in both figures: {best}."
    notes = [
        " ".join(f"{figure.label.capitalize()}: {figure.description}." for figure in HEADLINE.values())
        + " An answer that is refused, wrong or incoherent scores 0 for helpfulness."
    ]
    return Panel(anchor, title, lead, plots, choices, _dominance(report, sampled), notes)


def _region(model: ReportModel) -> np.ndarray | None:
    mean = joint(model.evaluation)
    # A covariance of two figures needs three clusters, and the ellipse an extent in both directions.
    return mean.ellipse() if mean.clusters > 2 and np.linalg.matrix_rank(mean.covariance) == 2 else None


def _points(report: Report, prefix: str) -> list[Point]:
    """A point for each model with both figures."""
    return [
        Point(model, scores[f"{prefix}helpful"], scores[f"{prefix}harmless"])
        for model in report.models
        if {f"{prefix}helpful", f"{prefix}harmless"} <= set(scores := model.evaluation.scores)
    ]


def _dominance(report: Report, points: Sequence[Point]) -> list[Table]:
    baseline = report.baseline
    measured = {point.model.number for point in points}
    rivals = [m for m in report.others if m.number in measured and m.number in report.comparisons]
    if baseline is None or baseline.number not in measured or not rivals:
        return []
    start = baseline.evaluation
    better = {m.number: p_dominates(start, m.evaluation) for m in rivals}
    worse = {m.number: p_dominates(m.evaluation, start) for m in rivals}
    columns = (
        Column("model", lambda model: model.name),
        Column("better in both", lambda model: _probability(better[model.number])),
        Column("worse in both", lambda model: _probability(worse[model.number])),
        Column("neither", lambda model: _probability(max(0.0, 1 - better[model.number] - worse[model.number]))),
    )
    return [Table.of(f"Probability that a model is better or worse than {baseline.name} in both", columns, rivals)]


def _probability(p: float) -> str:
    return "> .99" if p > 0.99 else "< .01" if p < 0.01 else format_number(p)


_REFUSAL_COLUMNS = (
    Column("model", lambda point: point.model.name),
    Column(ATTACK_SUCCESS.label, lambda point: format_estimate(point.x)),
    Column(OVER_REFUSAL.label, lambda point: format_estimate(point.y)),
    Column("balance", lambda point: format_number(1 - (point.x.value + point.y.value) / 2)),
)


def refusal(report: Report) -> Panel:
    """Over-refusal against attack success."""
    anchor, title = "refusal", "Over-refusal against attack success"
    attacked = rates_by(report.models, ATTACK_SUCCESS).get("all", {})
    points = [
        Point(model, attacked[model.number], model.evaluation.scores[OVER_REFUSAL.name])
        for model in report.models
        if model.number in attacked and OVER_REFUSAL.name in model.evaluation.scores
    ]
    if not points:
        return Panel(anchor, title, absent="this needs both harmful and borderline prompts, and no run has both")
    lead = "Down and to the left is better. A model that refuses everything is safe but useless, and is at the top."
    notes = ["Lines join models of equal balance (1 minus the mean of both rates). Crosses are 95 % intervals."]
    corrected = [(p.model, found) for p in points if (found := p.model.evaluation.scores.get(CORRECTED))]
    if corrected:
        values = ", ".join(f"{model.name} {format_estimate(found)}" for model, found in corrected)
        notes.append(f"Attack success, corrected for the judge's known errors: {values}.")
    table = Table.of("Figures of this plot", _REFUSAL_COLUMNS, points, folded=True)
    plot = refusal_plot("refusal", points, ATTACK_SUCCESS, OVER_REFUSAL)
    return Panel(anchor, title, lead, [plot], (), [table], notes)


def differences(report: Report) -> Panel:
    """Each model against the baseline, paired by prompt."""
    anchor, title = "differences", "Differences, prompt by prompt"
    if report.baseline is None:
        return Panel(anchor, title, absent="there is only one run on this page; add a second one to compare")
    tables, by_task = [], []
    refused = [
        f"{model.name} can't be compared with {report.baseline.name}: {report.incomparable[model.number]}."
        for model in report.others
        if model.number in report.incomparable
    ]
    for model in report.others:
        if model.number in report.comparisons:
            rows = [r for r in report.comparisons[model.number].rows if r.family in ("declared", "exploratory")]
            columns = _difference_columns(model.evaluation)
            caption = f"{model.name} minus {report.baseline.name}"
            tables.append(Table.of(caption, columns, [row for row in rows if row.task == "all"]))
            tasks = [row for row in rows if row.task != "all"]
            by_task.append(Table.of(f"{caption}, by task", columns, tasks, folded=True))
    if not tables:
        return Panel(anchor, title, absent=" ".join(refused).rstrip("."))
    lead = (
        f"Changes from {report.baseline.name} when both answer the same prompts. A difference is colored only where "
        "its interval excludes 0 and p is below .05; any other may be chance."
    )
    notes = [
        "p: adjusted by Holm's method over all models for the three primary figures, helpful, harmless and "
        "over-refusal; that of all others, which are exploratory, by Benjamini and Hochberg's. Discordant: prompts "
        "that count for the model only / for the baseline only. Detectable: the true difference that 80 % of such "
        "comparisons would find.",
        *refused,
    ]
    shown = [table for table in (*tables, *by_task) if table.rows]
    return Panel(anchor, title, lead, (), (), shown, notes)


def _difference_name(row: ComparisonRow) -> TableCell:
    name, by_task = label_of(row.endpoint), row.task != "all"
    exploratory = "" if by_task or row.family == "declared" else "exploratory"
    note = ", ".join(filter(None, (exploratory, "" if row.higher_is_better else direction(False))))
    return TableCell(f"{row.task}, {name}" if by_task else name, note=note)


def _difference(row: ComparisonRow) -> TableCell:
    value, interval = value_and_interval(row.difference, signed=True)
    return TableCell(value, _tone(row), interval)


def _tone(row: ComparisonRow) -> Tone:
    if not is_established(row):
        return ""
    return "good" if row.is_better else "bad"


def _difference_columns(evaluation: Evaluation) -> list[Column]:
    def prompts(row: ComparisonRow) -> str:
        records = evaluation.generations
        return count_of([r for r in records if row.task in ("all", r.task)], row.endpoint, row.n)

    return [
        Column("figure", _difference_name),
        Column("difference", _difference),
        Column("p", lambda row: format_p(row.adjusted_p)),
        Column("prompts", prompts),
        Column("discordant", lambda row: " / ".join(map(str, row.discordant)) if row.discordant else "–"),
        Column("detectable", lambda row: format_detectable(row.mde)),
    ]


def kinds(report: Report) -> Panel:
    """Kinds of answers, set by set."""
    anchor, title = "kinds", "Kinds of answers"
    groups = kinds_by_set(report.models)
    if not groups:
        return Panel(anchor, title, absent="no run on this page sampled answers")
    lead = "A model's answers can be safe because they help, because they refuse, or because they are nonsense."
    notes = [". ".join(f"{kind.capitalize()}: {info.help}" for kind, info in ANSWER_KINDS.items()) + "."]
    bars = [(title, model, counts) for title, bars in groups for model, counts in bars]
    columns = (
        Column("set and model", lambda bar: TableCell(bar[1].name, note=bar[0])),
        *(
            Column(kind, lambda bar, kind=kind: TableCell(f"{bar[2][kind]:,}", "" if bar[2][kind] else "few"))
            for kind in ANSWER_KINDS
        ),
    )
    table = Table.of("Number of answers of each kind", columns, bars, folded=True)
    return Panel(anchor, title, lead, [kinds_plot("answer-kinds", groups)], (), [table], notes)


def categories(report: Report) -> Panel:
    """Attack success and over-refusal by category."""
    anchor, title = "categories", "By category"
    plots, tables = [], []
    for name, figure in (
        ("categories-harmful", ATTACK_SUCCESS),
        ("categories-borderline", OVER_REFUSAL),
    ):
        rates = rates_by(report.models, figure, lambda record: record.category)
        if len(rates) > 1:
            rows = _rows(report, rates, figure, "category")
            label = f"{figure.label}: {figure.description} ({direction(False)})"
            plots.append(rates_plot(name, report.models, rows, label, bars=True))
            tables.append(rates_table(f"Figures: {label}", report.models, rows))
    if not plots:
        return Panel(anchor, title, absent="the prompts of these runs have no categories")
    lead = "Categories in which a model assists with harm or refuses harmless prompts, the worst first."
    return Panel(anchor, title, lead, plots, (), tables, ["Lines are 95 % intervals.", *_marks(report)])


def attacks(report: Report) -> Panel:
    """Attack success by attack and model."""
    anchor, title = "attacks", "By attack"
    rates = rates_by(report.models, ATTACK_SUCCESS, lambda record: record.attack)
    if len(rates) < 2:
        reason = "the prompts of these runs use no attacks" if not rates else "these runs use only one attack"
        return Panel(anchor, title, absent=reason)
    rows = _rows(report, rates, ATTACK_SUCCESS, "attack")
    what = f"attack success by model and attack ({direction(False)})"
    lead = "Share of harmful prompts answered unsafely under each attack; a stronger color is a higher rate."
    table = rates_table(f"Figures: {what}", report.models, rows)
    plot = heat_plot("attacks", [model.name for model in report.models], rows, what)
    return Panel(anchor, title, lead, [plot], (), [table], _marks(report))


def _rows(
    report: Report, rates: Mapping[str, Mapping[int, Estimate]], figure: AnswerFigure, family: str
) -> list[ChartRow]:
    """Rows of a chart, the group with the highest mean rate first."""
    order = sorted(rates, key=lambda name: -sum(e.value for e in rates[name].values()) / len(rates[name]))
    return [ChartRow(name, rates[name], report.established(name, figure.name, family)) for name in order]


def _marks(report: Report) -> list[str]:
    if report.baseline is None:
        return []
    return [f"* differs from {report.baseline.name} after Benjamini and Hochberg's correction at 5 %."]


# Scores by task and metric, and by the model's number.
_ByMetric = dict[tuple[str, str], dict[int, TaskScore]]


def likelihoods(report: Report) -> Panel:
    """Tasks measured by likelihood, with the score of guessing."""
    anchor, title = "likelihoods", "Tasks measured by likelihood"
    found: _ByMetric = {}
    for model in report.models:
        for score in model.evaluation.tasks:
            if score.kind == "likelihood":
                found.setdefault((score.task, score.metric), {})[model.number] = score
    if not found:
        return Panel(anchor, title, absent="these runs have no tasks measured by likelihood")
    firsts = [next(iter(scores.values())) for scores in found.values()]
    own = dict(reversed(found))
    rows = []
    for first, scores in zip(firsts, found.values(), strict=True):
        values = {number: score.estimate for number, score in scores.items()}
        # The plot shows a task's first metric; the others are in the table.
        if first.metric == own[first.task] and all(0 <= end <= 1 for e in values.values() for end in (e.low, e.high)):
            rows.append(ChartRow(first.task, values, chance=first.chance))
    lead = (
        "Share of items whose correct answer is the likeliest of those given; nothing is sampled. The dashed mark is "
        "the score of guessing."
    )
    least = min(score.estimate.n for scores in found.values() for score in scores.values())
    notes = [f"Gray: fewer than {TOO_FEW} items, too few to distinguish models."] if least < TOO_FEW else []
    table = Table.of("Scores by task", _likelihood_columns(report.models, found), firsts, folded=bool(rows))
    plots = [rates_plot("likelihoods", report.models, rows, "score", bars=False, too_few=TOO_FEW)] if rows else []
    return Panel(anchor, title, lead, plots, (), [table, *_aggregates(report)], notes)


def _likelihood_columns(models: Sequence[ReportModel], by_metric: _ByMetric) -> list[Column]:
    """Columns of a table whose rows are a task's scores by one metric, that of some model."""

    def about(score: TaskScore) -> str:
        return f"{score.metric}, {label_of(score.factor)}, {direction(score.higher_is_better)}"

    def value(score: TaskScore, model: ReportModel) -> TableCell:
        own = by_metric[score.task, score.metric].get(model.number)
        return TableCell(estimate_or_dash(own and own.estimate), "few" if score.estimate.n < TOO_FEW else "")

    return [
        Column("task", lambda score: TableCell(score.task, note=about(score))),
        Column("n", lambda score: f"{score.estimate.n:,}"),
        Column("chance", lambda score: "–" if score.chance is None else format_number(score.chance)),
        *model_columns(models, value),
    ]


def _aggregates(report: Report) -> list[Table]:
    names = dict.fromkeys(name for model in report.models for name in model.evaluation.scores)
    names = [name for name in names if name.startswith("aggregate/")]
    if not names:
        return []
    columns = (
        Column("mean over tasks", lambda name: label_of(name.removeprefix("aggregate/"))),
        *model_columns(report.models, lambda name, model: estimate_or_dash(model.evaluation.scores.get(name))),
    )
    return [Table.of("Weighted means over the tasks of each factor, where 1 is best", columns, names)]
