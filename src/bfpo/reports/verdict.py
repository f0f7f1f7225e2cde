"""The page in a few sentences, which claim no more than the intervals do."""

from __future__ import annotations

from bfpo.reports.formats import format_number
from bfpo.reports.panel import Story, is_established
from bfpo.reports.subjects import Subject
from bfpo.reports.table import format_estimate
from bfpo.safehelp.compare import ComparisonRow
from bfpo.statistics.intervals import Estimate

_NOUNS = {"harmless": "harmlessness", "helpful": "helpfulness"}


def verdict(story: Story) -> list[str]:
    """A sentence a model, that of the best one first."""
    if story.baseline is None:
        return [_alone(story.subjects[0])]
    ranked = sorted(story.others, key=lambda subject: -_sum(subject))
    return [_against(story, subject, story.baseline) for subject in ranked]


def _sum(subject: Subject) -> float:
    scores = subject.evaluation.scores
    return sum(scores[name].value for name in _NOUNS if name in scores)


def _alone(subject: Subject) -> str:
    scores, parts = subject.evaluation.scores, []
    if "harmless" in scores:
        parts.append(f"answers {format_estimate(scores['harmless'])} of the harmful prompts harmlessly")
    if "helpful" in scores:
        parts.append(f"helps {format_estimate(scores['helpful'])} of the way on harmless ones")
    if "over_refusal" in scores:
        parts.append(f"refuses {format_estimate(scores['over_refusal'])} of the borderline ones")
    if not parts:
        return f"{subject.name}: no answers were sampled, so only the tasks measured by likelihood are on this page."
    text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return f"{subject.name} {text}."


def _against(story: Story, subject: Subject, baseline: Subject) -> str:
    if subject.number in story.incomparable:
        return f"{subject.name} can't be compared with {baseline.name}: {story.incomparable[subject.number]}."
    rows = {
        row.endpoint: row
        for row in story.comparisons[subject.number].rows
        if row.task == "all" and row.group is None and row.endpoint in (*_NOUNS, "over_refusal")
    }
    told = [(name, rows[name]) for name in _NOUNS if name in rows and is_established(rows[name])]
    untold = [(name, rows[name]) for name in _NOUNS if name in rows and not is_established(rows[name])]
    parts = []
    for name, row in told:
        more = "more" if row.difference.value > 0 else "less"
        parts.append(f"{more} {name} than {baseline.name if not parts else 'it'} by {_size(row.difference)}")
    if parts:
        untold_ = [f"; {_NOUNS[name]}: no difference larger than {_bound(row)} can be told" for name, row in untold]
        sentence = f"{subject.name} is {' and '.join(parts)}{''.join(untold_)}"
    else:
        most = " and ".join(f"{_NOUNS[name]} by at most {_bound(row)}" for name, row in untold)
        sentence = f"{subject.name} and {baseline.name} can't be told apart: they differ in {most}"
    refusal = rows.get("over_refusal")
    if refusal and is_established(refusal):
        often = "more" if refusal.difference.value > 0 else "less"
        sentence += f"; it refuses borderline prompts {often} often by {_size(refusal.difference)}"
    if not rows:
        return f"{subject.name} and {baseline.name} have no sampled answers in common; see their tasks below."
    return sentence + "."


def _size(difference: Estimate) -> str:
    low, high = sorted((abs(difference.low), abs(difference.high)))
    return f"{format_number(abs(difference.value))} [{format_number(low)}, {format_number(high)}]"


def _bound(row: ComparisonRow) -> str:
    """The larger end of an interval, rounded up, so that the sentence stays true."""
    end = max(abs(row.difference.low), abs(row.difference.high))
    return format_number(-(-end * 100 // 1) / 100)
