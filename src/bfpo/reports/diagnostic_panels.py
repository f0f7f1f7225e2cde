"""Diagnostic panels: training, reliability of the judges, length of answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from bfpo.reports.breakdowns import (
    APOLOGIES,
    TRUNCATED,
    agreement_by_certainty,
    certainty,
    gaps_of,
    help_by_length,
    mean_tokens,
    rates_by,
)
from bfpo.reports.charts import CELLS, gap_plot, judge_plot, length_plot
from bfpo.reports.formats import format_estimate, format_number
from bfpo.reports.panel import Column, Panel, Table, TableCell, estimate_or_dash, model_columns
from bfpo.reports.report import Report, ReportModel
from bfpo.safehelp.judge_panel import ORACLE
from bfpo.safehelp.scores import judge_agreement
from bfpo.statistics.intervals import Estimate

LENGTH_CONTROLLED = "win_rate_length_controlled"


def training(report: Report) -> Panel:
    """Gap to the labels in the four safety cells over training."""
    anchor, title = "training", "Training: the gap to the label"
    gaps = {number: found for number, record in report.training.items() if (found := gaps_of(record))}
    if not gaps:
        return Panel(anchor, title, absent="no model's folder contains the log of a training run with target labels")
    lead = (
        "BFPO trains each pair's margin toward its label. The gap is the label minus the margin: it starts at the size "
        "of the label, its target is 0, and it is negative once the margin exceeds the label. A cell whose gap stays "
        "high was not learned."
    )
    columns = (
        Column("model", lambda number: report.models[number].name),
        *(
            Column(words, lambda number, cell=cell: _ends(gaps[number].get(cell, ())), note="first → last")
            for cell, words in CELLS.items()
        ),
    )
    table = Table.of("Gap in the four safety cells", columns, gaps, folded=True)
    return Panel(anchor, title, lead, [gap_plot("training-gap", report.models, gaps)], (), [table])


def _ends(points: Sequence[tuple[int, float]]) -> str:
    return f"{format_number(points[0][1])} → {format_number(points[-1][1])}" if points else "–"


_AGREEMENT_COLUMNS = (
    Column("model", lambda row: row[0].name),
    Column("κ", lambda row: estimate_or_dash(row[1].kappa)),
    Column("same label", lambda row: format_estimate(row[1].observed)),
    Column("answers", lambda row: f"{row[1].observed.n:,}"),
)


def judges(report: Report) -> Panel:
    """Certainty of the primary judge, and its agreement with a second one, where the judges are the baseline's."""
    anchor, title = "judges", "Reliability of the judges"
    start = report.baseline or report.models[0]
    judges = start.evaluation.header.judges
    models = [model for model in report.models if model.evaluation.header.judges == judges]
    records = [record for model in models for record in model.evaluation.generations]
    used = [judge.judge_id for judge in judges if judge.role in ("primary", "second")]
    shares = certainty(records)
    agreements = [(model, found) for model in models if (found := judge_agreement(model.evaluation))]
    others = ", ".join(model.name for model in report.models if model not in models)
    left_out = [f"Without {others}: other judges than those of {start.name}, or other templates."] if others else []
    if not shares and not agreements:
        reason = " ".join(["the judge gave no probabilities, and there was no second judge.", *left_out])
        return Panel(anchor, title, absent=reason.rstrip("."))
    names = used if len(used) > 1 else [used[0] if used else "the judge", "the second judge"]
    by_certainty = agreement_by_certainty(records) if agreements else {}
    # The distribution of zeros and ones shows nothing.
    graded = bool(shares) and shares[0] + shares[-1] < 1
    plots = [judge_plot("judges", shares, by_certainty, names)] if graded or by_certainty else []
    tables, notes = [], []
    if agreements:
        tables.append(Table.of(f"Agreement of {names[0]} and {names[1]}", _AGREEMENT_COLUMNS, agreements))
        tables.append(_labels_table([found.table for _, found in agreements]))
        lead = (
            "A figure is no more reliable than the judges' agreement. To see where they differ, filter the answers "
            "below by “judges disagree”."
        )
        notes = ["κ (Cohen's kappa) is 0 if the judges agree only as often as by chance, and 1 if they always agree."]
    elif plots:
        lead = "There was no second judge, so this page can't show how often the judge is wrong."
    elif used == [ORACLE]:
        lead = "The judge is the microworld's oracle, which is exact."
    else:
        lead = (
            "The judge gave only probabilities of 0 and 1, which show nothing about its errors, and there was no "
            "second judge."
        )
    return Panel(anchor, title, lead, plots, (), tables, [*notes, *left_out])


def _labels_table(counted: Iterable[Mapping[tuple[str, str], int]]) -> Table:
    total: Counter[tuple[str, str]] = Counter()
    for table in counted:
        total.update(table)
    firsts, seconds = (list(dict.fromkeys(pair[judge] for pair in total)) for judge in (0, 1))
    columns = (
        Column("primary judge", lambda first: first),
        *(
            Column(second, lambda first, second=second: f"{total[first, second]:,}", note="second judge")
            for second in seconds
        ),
    )
    return Table.of("Labels of both judges, all models together", columns, firsts, folded=True)


def length(report: Report) -> Panel:
    """Length of answers and apologies, which are known to bias judges."""
    anchor, title = "length", "Length and apologies"
    apologies, cut = (rates_by(report.models, figure).get("all", {}) for figure in (APOLOGIES, TRUNCATED))
    if not apologies:
        return Panel(anchor, title, absent="no run on this page sampled answers")
    curves = {m.number: found for m in report.models if (found := help_by_length(m.evaluation.generations))}
    columns = (
        Column("model", lambda model: model.name),
        Column("mean tokens", _mean_tokens),
        Column(APOLOGIES.label, lambda model: estimate_or_dash(apologies[model.number])),
        Column(TRUNCATED.label, lambda model: estimate_or_dash(cut[model.number])),
    )
    lead = (
        "Judges tend to favor long answers, and some mistake an apology for safety, so be careful with a gain that "
        "comes with either."
    )
    plots, notes = [], []
    if curves:
        plots = [length_plot("length", report.models, curves)]
        notes = ["Each line shows a model's answers in four equal parts, from short to long, without refusals."]
    sampled = [model for model in report.models if model.number in apologies]
    tables = [Table.of("Length of answers", columns, sampled), *_win_rates(report)]
    return Panel(anchor, title, lead, plots, (), tables, notes)


def _mean_tokens(model: ReportModel) -> str:
    mean = mean_tokens(model.evaluation.generations)
    return f"{mean.value:.1f} [{mean.low:.1f}, {mean.high:.1f}]" if mean else "–"


def _win_rates(report: Report) -> list[Table]:
    """Win rates against the reference answers, as they are and at equal length."""
    found: dict[tuple[str, str], dict[int, Estimate]] = {}
    scores = [(model.number, score) for model in report.models for score in model.evaluation.tasks]
    tasks = {score.task for _, score in scores if score.metric == LENGTH_CONTROLLED}
    kinds = {LENGTH_CONTROLLED: "at equal length", "helpful": "as they are"}
    for number, score in scores:
        if score.task in tasks and score.metric in kinds:
            found.setdefault((score.task, kinds[score.metric]), {})[number] = score.estimate
    if not found:
        return []
    columns = (
        Column("win rate", lambda row: TableCell(row[0], note=row[1])),
        *model_columns(report.models, lambda row, model: estimate_or_dash(found[row].get(model.number))),
    )
    return [Table.of("Win rate against the reference answers", columns, sorted(found))]
