"""The panels of results: both planes, differences, kinds of answers, categories, attacks, tasks by likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bfpo.reports.charts import Row, heat_plot, kinds_plot, rates_plot
from bfpo.reports.formats import format_number, format_p, format_signed
from bfpo.reports.panel import Cell, Panel, Story, Table, Tone, is_established
from bfpo.reports.planes import Place, frontier, headline_plot, refusal_plot
from bfpo.reports.subjects import Subject
from bfpo.reports.table import format_estimate
from bfpo.reports.tallies import kinds_by_set, rates_by
from bfpo.safehelp.answer_kinds import ANSWER_KINDS
from bfpo.safehelp.compare import ComparisonRow
from bfpo.safehelp.figures import ATTACK_SUCCESS, HEADLINE
from bfpo.safehelp.plane import joint, p_dominates
from bfpo.safehelp.records import TaskScore
from bfpo.statistics.intervals import Estimate

TOO_FEW = 200
CORRECTED = "attack_success/corrected"
OVER_REFUSAL = next(figure for figure in HEADLINE if figure.name == "over_refusal")


def headline(story: Story) -> Panel:
    """Helpful against harmless, with joint regions, and who is better in both."""
    anchor, title = "headline", "Helpful and harmless"
    plots, choices = [], []
    sampled = [
        Place(s, s.evaluation.scores["helpful"], s.evaluation.scores["harmless"], joint(s.evaluation).ellipse())
        for s in story.subjects
        if {"helpful", "harmless"} <= set(s.evaluation.scores)
    ]
    likelihood = [
        Place(s, s.evaluation.scores["likelihood/helpful"], s.evaluation.scores["likelihood/harmless"])
        for s in story.subjects
        if {"likelihood/helpful", "likelihood/harmless"} <= set(s.evaluation.scores)
    ]
    if sampled:
        choices.append("sampled answers")
        x, y = "helpful: mean help on harmless prompts →", "harmless: harmful prompts answered safely →"
        plots.append(headline_plot("headline", sampled, x, y))
    if likelihood:
        choices.append("likelihood of given answers")
        x, y = "the more helpful answer is likelier →", "the harmless answer is likelier →"
        plots.append(headline_plot("headline-likelihood", likelihood, x, y))
    if not plots:
        return Panel(anchor, title, absent="no run on this page measured both helpfulness and harmlessness")
    best = [place.subject.name for place in frontier(sampled or likelihood)]
    lead = "Up and to the right is better. Shaded: where both figures lie together with 95 % confidence."
    if len(story.subjects) > 1:
        several = "no other model beats them in both" if len(best) > 1 else "no other model beats it in both"
        lead += f" On the frontier: {', '.join(best)} ({several})."
    notes = [
        "Helpful: mean help over benign and borderline prompts; a refusal, a wrong or an incoherent answer counts 0. "
        "Harmless: share of harmful prompts answered safely and coherently."
    ]
    return Panel(anchor, title, lead, plots, choices, _dominance(story, sampled), notes)


def _dominance(story: Story, places: Sequence[Place]) -> list[Table]:
    baseline = story.baseline
    measured = {place.subject.number for place in places}
    rivals = [s for s in story.others if s.number in measured and s.number in story.comparisons]
    if baseline is None or baseline.number not in measured or not rivals:
        return []
    rows = []
    for subject in rivals:
        better = p_dominates(baseline.evaluation, subject.evaluation)
        worse = p_dominates(subject.evaluation, baseline.evaluation)
        rows.append(
            [Cell(subject.name), *(Cell(_probability(p)) for p in (better, worse, max(0.0, 1 - better - worse)))]
        )
    head = [Cell("model"), Cell("better in both"), Cell("worse in both"), Cell("better in one")]
    return [Table(f"Probability that a model is better or worse than {baseline.name} in both figures", head, rows)]


def _probability(p: float) -> str:
    return "> .99" if p > 0.99 else "< .01" if p < 0.01 else format_number(p)


def refusal(story: Story) -> Panel:
    """What is refused wrongly against what is answered wrongly."""
    anchor, title = "refusal", "Over-refusal against attack success"
    attacked = rates_by(story.subjects, ATTACK_SUCCESS).get("all", {})
    places = [
        Place(s, attacked[s.number], s.evaluation.scores["over_refusal"])
        for s in story.subjects
        if s.number in attacked and "over_refusal" in s.evaluation.scores
    ]
    if not places:
        return Panel(anchor, title, absent="this needs both harmful and borderline prompts, and no run has both")
    x, y = "attack success: harmful prompts complied with →", "over-refusal: borderline prompts refused →"
    lead = "Down and to the left is better: a model that refuses everything is safe and useless, and stands at the top."
    notes = ["Lines join models of equal balance, one less the mean of both rates; crosses are 95 % intervals."]
    head = [Cell("model"), Cell("attack success"), Cell("over-refusal"), Cell("balance")]
    rows = [
        [Cell(p.subject.name), Cell(format_estimate(p.x)), Cell(format_estimate(p.y)),
         Cell(format_number(1 - (p.x.value + p.y.value) / 2))]
        for p in places
    ]  # fmt: skip
    corrected = [(p.subject, found) for p in places if (found := p.subject.evaluation.scores.get(CORRECTED))]
    if corrected:
        told = ", ".join(f"{subject.name} {format_estimate(found)}" for subject, found in corrected)
        notes.append(f"Attack success corrected for the judge's known errors: {told}.")
    table = Table("The figures of this plot", head, rows, folded=True)
    return Panel(anchor, title, lead, [refusal_plot("refusal", places, x, y)], (), [table], notes)


def differences(story: Story) -> Panel:
    """Each model against the baseline, paired on prompts."""
    anchor, title = "differences", "Differences, prompt by prompt"
    if story.baseline is None:
        return Panel(anchor, title, absent="there is one run on this page; name a second to compare with")
    tables, by_task = [], []
    refused = [
        f"{subject.name} can't be compared with {story.baseline.name}: {story.incomparable[subject.number]}."
        for subject in story.others
        if subject.number in story.incomparable
    ]
    for subject in story.others:
        if subject.number in story.comparisons:
            rows = [r for r in story.comparisons[subject.number].rows if r.family in ("declared", "exploratory")]
            caption = f"{subject.name} less {story.baseline.name}"
            tables.append(_difference_table(caption, [row for row in rows if row.task == "all"]))
            by_task.append(_difference_table(f"{caption}, by task", [row for row in rows if row.task != "all"]))
    if not tables:
        return Panel(anchor, title, absent=" ".join(refused).rstrip("."))
    lead = (
        f"What changes from {story.baseline.name} when both answer the same prompts. A difference is coloured "
        "only where its interval excludes 0 and p is below .05; all else may be chance."
    )
    notes = [
        "Discordant: prompts with a 1 from the model only / from the baseline only. p: adjusted by Holm's method over "
        "all models for the two declared endpoints, helpful and harmless; other rows are exploratory. Detectable: the "
        "difference that this many prompts show in 80 % of the cases.",
        *refused,
    ]
    shown = [table for table in (*tables, *by_task) if table.rows]
    return Panel(anchor, title, lead, (), (), shown, notes)


def _difference_table(caption: str, compared: Sequence[ComparisonRow]) -> Table:
    head = [Cell("figure"), Cell("difference"), Cell("p"), Cell("pairs"), Cell("discordant"), Cell("detectable")]
    rows = []
    for row in compared:
        discordant = f"{row.discordant[0]} / {row.discordant[1]}" if row.discordant else "–"
        p = format_p(row.p if row.adjusted_p is None else row.adjusted_p)
        by_task = row.task != "all"
        name = f"{row.task}, {row.endpoint}" if by_task else row.endpoint
        family = "" if by_task or row.family == "declared" else "exploratory"
        note = ", ".join(filter(None, (family, "" if row.higher_is_better else "less is better")))
        digits = row.difference.digits()
        value, low, high = (
            format_signed(end, digits) for end in (row.difference.value, row.difference.low, row.difference.high)
        )
        rows.append([
            Cell(name.replace("_", "-"), note=note), Cell(value, _tone(row), f"[{low}, {high}]"),
            Cell(p), Cell(f"{row.n:,}"), Cell(discordant), Cell(format_number(row.mde)),
        ])  # fmt: skip
    return Table(caption, head, rows, folded=any(row.task != "all" for row in compared))


def _tone(row: ComparisonRow) -> Tone:
    if not is_established(row):
        return ""
    return "good" if (row.difference.value > 0) == row.higher_is_better else "bad"


def kinds(story: Story) -> Panel:
    """What the answers are, set by set."""
    anchor, title = "kinds", "What the answers are"
    groups = kinds_by_set(story.subjects)
    if not groups:
        return Panel(anchor, title, absent="no run on this page sampled answers")
    lead = (
        "A safe rate alone hides how a model is safe: by helping, by refusing, or by writing nothing that makes sense. "
        "Unjudged answers, which no judge could read, are counted as neither safe nor unsafe."
    )
    head = [Cell("set and model"), *(Cell(kind) for kind in ANSWER_KINDS)]
    rows = [
        [
            Cell(subject.name, note=title),
            *(Cell(f"{counts[kind]:,}", "" if counts[kind] else "few") for kind in ANSWER_KINDS),
        ]
        for title, bars in groups
        for subject, counts in bars
    ]
    table = Table("Counts of answers by kind", head, rows, folded=True)
    return Panel(anchor, title, lead, [kinds_plot("answer-kinds", groups)], (), [table])


def categories(story: Story) -> Panel:
    """Harmful compliance and over-refusal by category."""
    anchor, title = "categories", "By category"
    harmful = rates_by(story.subjects, ATTACK_SUCCESS, lambda record: record.category)
    borderline = rates_by(story.subjects, OVER_REFUSAL, lambda record: record.category)
    plots, tables = [], []
    for name, rates, endpoint, label in (
        ("categories-harmful", harmful, "harmless", "harmful prompts complied with (less is better)"),
        ("categories-borderline", borderline, "over_refusal", "borderline prompts refused (less is better)"),
    ):
        if len(rates) > 1:
            rows = _rows(story, rates, endpoint, "category")
            plots.append(rates_plot(name, story.subjects, rows, label, bars=True))
            tables.append(_rates_table(label, story.subjects, rows))
    if not plots:
        return Panel(anchor, title, absent="the prompts of these runs have no categories")
    lead = "Which harms a model gives in to, and which harmless prompts it mistakes for harm; the worst on top."
    return Panel(anchor, title, lead, plots, (), tables, ["Lines are 95 % intervals.", *_marks(story)])


def attacks(story: Story) -> Panel:
    """Attack success by attack and model."""
    anchor, title = "attacks", "By attack"
    rates = rates_by(story.subjects, ATTACK_SUCCESS, lambda record: record.attack)
    if len(rates) < 2:
        reason = "all prompts of these runs are asked plainly" if not rates else "these runs use one attack only"
        return Panel(anchor, title, absent=reason)
    rows = _rows(story, rates, "harmless", "attack")
    what = "attack success by model and attack (less is better)"
    lead = "How often a harmful prompt is complied with under each disguise. The stronger the colour, the more often."
    table = _rates_table(what, story.subjects, rows)
    return Panel(anchor, title, lead, [heat_plot("attacks", story.subjects, rows, what)], (), [table], _marks(story))


def _rows(story: Story, rates: Mapping[str, Mapping[int, Estimate]], endpoint: str, family: str) -> list[Row]:
    """Rows of a chart, the group with the highest mean rate first."""
    order = sorted(rates, key=lambda name: -sum(e.value for e in rates[name].values()) / len(rates[name]))
    return [Row(name, rates[name], story.established(name, endpoint, family)) for name in order]


def _marks(story: Story) -> list[str]:
    if story.baseline is None:
        return []
    return [f"* differs from {story.baseline.name} after Benjamini and Hochberg's correction at 5 %."]


def _rates_table(caption: str, subjects: Sequence[Subject], rows: Sequence[Row]) -> Table:
    head = [Cell("group"), *(Cell(subject.name) for subject in subjects)]
    body = [
        [Cell(row.name, note=f"n = {max(e.n for e in row.values.values()):,}"),
         *(_rate(row.values.get(s.number), "*" if s.number in row.marked else "") for s in subjects)]
        for row in rows
    ]  # fmt: skip
    return Table(f"Figures: {caption}", head, body, folded=True)


def _rate(estimate: Estimate | None, mark: str = "") -> Cell:
    return Cell(format_estimate(estimate) + mark if estimate else "–")


def likelihoods(story: Story) -> Panel:
    """Tasks measured by likelihood, by name, with what guessing scores."""
    anchor, title = "likelihoods", "Tasks measured by likelihood"
    found: dict[tuple[str, str], dict[int, TaskScore]] = {}
    for subject in story.subjects:
        for score in subject.evaluation.tasks:
            if score.kind == "likelihood":
                found.setdefault((score.task, score.metric), {})[subject.number] = score
    if not found:
        return Panel(anchor, title, absent="these runs measured no task by likelihood")
    own = dict(reversed(found))
    rows, body = [], []
    for (task, metric), scores in found.items():
        one = next(iter(scores.values()))
        values = {place: score.estimate for place, score in scores.items()}
        # A task's first metric is its own; the others are in the table.
        if metric == own[task] and all(0 <= end <= 1 for e in values.values() for end in (e.low, e.high)):
            rows.append(Row(task, values, chance=one.chance))
        about = f"{metric}, {one.factor.replace('_', '-')}, {'more' if one.higher_is_better else 'less'} is better"
        chance = "–" if one.chance is None else format_number(one.chance)
        few = "few" if one.estimate.n < TOO_FEW else ""
        cells = [replace(_rate(values.get(subject.number)), tone=few) for subject in story.subjects]
        body.append([Cell(task, note=about), Cell(f"{one.estimate.n:,}"), Cell(chance), *cells])
    head = [Cell("task"), Cell("n"), Cell("chance"), *(Cell(s.name) for s in story.subjects)]
    lead = "Which of the given answers is likelier; nothing is sampled. The dashed mark is what guessing scores."
    least = min(one.estimate.n for scores in found.values() for one in scores.values())
    notes = [f"Grey: fewer than {TOO_FEW} items, too few to tell models apart."] if least < TOO_FEW else []
    tables = [Table("Scores by task", head, body, folded=bool(rows)), *_aggregates(story)]
    plots = [rates_plot("likelihoods", story.subjects, rows, "score", bars=False, too_few=TOO_FEW)] if rows else []
    return Panel(anchor, title, lead, plots, (), tables, notes)


def _aggregates(story: Story) -> list[Table]:
    scores = [subject.evaluation.scores for subject in story.subjects]
    names = [name for name in dict.fromkeys(name for one in scores for name in one) if name.startswith("aggregate/")]
    if not names:
        return []
    head = [Cell("mean over tasks"), *(Cell(subject.name) for subject in story.subjects)]
    rows = [
        [Cell(name.removeprefix("aggregate/").replace("_", "-")), *(_rate(one.get(name)) for one in scores)]
        for name in names
    ]
    return [Table("Tasks of one factor together, each turned so that 1 is best, with its declared weight", head, rows)]
