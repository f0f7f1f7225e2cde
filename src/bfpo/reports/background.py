"""The panels behind the results: training, judges, length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bfpo.reports.curves import CELLS, gap_plot, judge_plot, length_plot
from bfpo.reports.formats import format_number
from bfpo.reports.panel import Cell, Panel, Story, Table
from bfpo.reports.table import format_estimate
from bfpo.reports.tallies import (
    APOLOGIES,
    TRUNCATED,
    agreement_by_certainty,
    certainty,
    help_by_length,
    mean_tokens,
    rates_by,
)
from bfpo.reports.training_log import gaps_of
from bfpo.safehelp.scores import judge_agreement
from bfpo.statistics.intervals import Estimate

LENGTH_CONTROLLED = "win_rate_length_controlled"


def training(story: Story) -> Panel:
    """How near training came to the labels in the four safety cells."""
    anchor, title = "training", "Training: the gap to the label"
    gaps = {place: found for place, record in story.training.items() if (found := gaps_of(record))}
    if not gaps:
        return Panel(
            anchor, title, absent="no model's folder has the log of a training run with labels to aim at (BFPO)"
        )
    lead = (
        "BFPO aims at one label for each pair. The gap is what a cell's margin still lacks: it starts at the label's "
        "size, 0 is the target, below 0 is beyond it. A cell that stays high was not learnt."
    )
    head = [Cell("model"), *(Cell(words, note="first → last") for words in CELLS.values())]
    rows = [
        [Cell(story.subjects[place].name), *(Cell(_ends(cells.get(cell, ()))) for cell in CELLS)]
        for place, cells in gaps.items()
    ]
    table = Table("Gap in the four safety cells", head, rows, folded=True)
    return Panel(anchor, title, lead, [gap_plot("training-gap", story.subjects, gaps)], (), [table])


def _ends(points: Sequence[tuple[int, float]]) -> str:
    return f"{format_number(points[0][1])} → {format_number(points[-1][1])}" if points else "–"


def judges(story: Story) -> Panel:
    """How sure the primary judge is, and whether a second agrees."""
    anchor, title = "judges", "How far the judges can be trusted"
    records = [record for subject in story.subjects for record in subject.evaluation.generations]
    used = [judge.judge_id for judge in story.subjects[0].evaluation.header.judges]
    shares = certainty(records)
    agreements = [(s, found) for s in story.subjects if (found := judge_agreement(s.evaluation))]
    if not shares and not agreements:
        return Panel(anchor, title, absent="the judge gave no probabilities, and there was no second one")
    names = used if len(used) > 1 else [used[0] if used else "the judge", "the second judge"]
    by_certainty = agreement_by_certainty(records) if agreements else {}
    # An exact judge says 0 or 1; how sure it is tells nothing.
    graded = bool(shares) and shares[0] + shares[-1] < 1
    plots = [judge_plot("judges", shares, by_certainty, names)] if graded or by_certainty else []
    tables = []
    if agreements:
        head = [Cell("model"), Cell("κ"), Cell("same word"), Cell("answers")]
        rows = [
            [
                Cell(s.name),
                Cell(format_estimate(a.kappa) if a.kappa else "–"),
                Cell(format_estimate(a.observed)),
                Cell(f"{a.observed.n:,}"),
            ]
            for s, a in agreements
        ]
        tables.append(Table(f"Agreement of {names[0]} and {names[1]}", head, rows))
        tables.append(_words_table([found.table for _, found in agreements]))
        lead = "Where two judges differ, a figure is as uncertain as they are. Their disagreements can be read below."
    elif plots:
        lead = "There was no second judge, so nothing here says how often this one is wrong."
    else:
        lead = "The judge is exact: it gives probabilities of 0 and 1 only."
    notes = ["κ is 0 where agreement is what chance would give, and 1 where it is complete."] if agreements else []
    return Panel(anchor, title, lead, plots, (), tables, notes)


def _words_table(counted: Sequence[Mapping[tuple[str, str], int]]) -> Table:
    total: dict[tuple[str, str], int] = {}
    for table in counted:
        for pair, count in table.items():
            total[pair] = total.get(pair, 0) + count
    firsts, seconds = (list(dict.fromkeys(pair[place] for pair in total)) for place in (0, 1))
    head = [Cell("primary"), *(Cell(word, note="by the second") for word in seconds)]
    rows = [[Cell(one), *(Cell(f"{total.get((one, two), 0):,}") for two in seconds)] for one in firsts]
    return Table("What both judges said, over all models", head, rows, folded=True)


def length(story: Story) -> Panel:
    """Length and apologies, which judges are known to be swayed by."""
    anchor, title = "length", "Length and apologies"
    apologies, cut = (rates_by(story.subjects, figure).get("all", {}) for figure in (APOLOGIES, TRUNCATED))
    if not apologies:
        return Panel(anchor, title, absent="no run on this page sampled answers")
    curves = {s.number: found for s in story.subjects if (found := help_by_length(s.evaluation.generations))}
    head = [Cell("model"), Cell("mean tokens"), Cell("start with an apology"), Cell("cut at the limit")]
    rows = []
    for subject in story.subjects:
        if subject.number in apologies:
            mean = mean_tokens(subject.evaluation.generations)
            tokens = f"{mean.value:.1f} [{mean.low:.1f}, {mean.high:.1f}]" if mean else "–"
            rates = (format_estimate(rates[subject.number]) for rates in (apologies, cut))
            rows.append([Cell(subject.name), Cell(tokens), *map(Cell, rates)])
    lead = (
        "Judges tend to favour long answers, and some take an apology for safety; a gain that comes with either "
        "deserves a second look."
    )
    plots = [length_plot("length", story.subjects, curves)] if curves else []
    notes = (
        ["Each line: a model's answers in four equal parts from short to long, refusals left out."] if curves else []
    )
    tables = [Table("Length of answers", head, rows), *_win_rates(story)]
    return Panel(anchor, title, lead, plots, (), tables, notes)


def _win_rates(story: Story) -> list[Table]:
    """How often answers win against the reference, as they are and as if they were as long as it."""
    found: dict[tuple[str, str], dict[int, Estimate]] = {}
    for subject in story.subjects:
        for score in subject.evaluation.tasks:
            if score.metric == LENGTH_CONTROLLED:
                found.setdefault((score.task, "at equal length"), {})[subject.number] = score.estimate
    tasks = {task for task, _ in found}
    for subject in story.subjects:
        for score in subject.evaluation.tasks:
            if score.task in tasks and score.metric == "helpful":
                found.setdefault((score.task, "as they are"), {})[subject.number] = score.estimate
    if not found:
        return []
    head = [Cell("win rate"), *(Cell(subject.name) for subject in story.subjects)]
    rows = [
        [
            Cell(task, note=how),
            *(Cell(format_estimate(one[s.number]) if s.number in one else "–") for s in story.subjects),
        ]
        for (task, how), one in sorted(found.items())
    ]
    return [Table("Win rate against the reference answers", head, rows)]
