"""What stands at the head and at the foot of the page: scoreboard, warnings, settings, digests, commands."""

from __future__ import annotations

from collections.abc import Callable

from bfpo.reports.formats import format_number, format_seconds
from bfpo.reports.panel import Cell, Story, Table
from bfpo.reports.table import GENERATION, HIGHER_IS_BETTER, LIKELIHOOD, format_estimate
from bfpo.safehelp.cautions import cautions as cautions_of
from bfpo.safehelp.records import RunHeader

_ENOUGH_MASS, _FEW = 0.9, 100


def scoreboard(story: Story) -> Table:
    """The headline figures, a row a model."""
    scores = [subject.evaluation.scores for subject in story.subjects]
    names = [name for name in GENERATION if any(name in one for one in scores)]
    names = names or [name for name in LIKELIHOOD if any(name in one for one in scores)]
    head = [Cell("model")]
    for name in names:
        n = max(one[name].n for one in scores if name in one)
        head.append(Cell(_title(name), note=f"{'more' if HIGHER_IS_BETTER[name] else 'less'} is better, n = {n:,}"))
    rows = [
        [Cell(s.name, note="baseline" if s.is_baseline else ""),
         *(Cell(format_estimate(s.evaluation.scores[name]) if name in s.evaluation.scores else "–") for name in names)]
        for s in story.subjects
    ]  # fmt: skip
    return Table(f"Headline figures with 95 % intervals, suite {story.subjects[0].evaluation.header.suite}", head, rows)


def _title(name: str) -> str:
    return name.replace("likelihood/", "likelihood, ").replace("_", "-")


def cautions(story: Story) -> list[str]:
    """What a reader must know before believing a figure."""
    lines: dict[str, list[str]] = {}
    for subject in story.subjects:
        found = cautions_of(subject.evaluation)
        if found:
            lines.setdefault("; ".join(line.rstrip(".") for line in found), []).append(subject.name)
    by_model = [f"{', '.join(names)}: {text}." for text, names in lines.items()]
    return [*by_model, *_low_mass(story), *_few(story)]


def _low_mass(story: Story) -> list[str]:
    records = [record for subject in story.subjects for record in subject.evaluation.generations]
    masses = [v.mass for record in records for v in record.verdicts[:1] if v.mass is not None]
    low = sum(mass < _ENOUGH_MASS for mass in masses)
    if not masses or low <= 0.01 * len(masses):
        return []
    return [
        f"The judge put less than {format_number(_ENOUGH_MASS, 1)} of its probability on valid words for {low:,} of "
        f"{len(masses):,} answers."
    ]


def _few(story: Story) -> list[str]:
    few = {
        f"{_title(name)} ({estimate.n})"
        for subject in story.subjects
        for name, estimate in subject.evaluation.scores.items()
        if estimate.n < _FEW and name in HIGHER_IS_BETTER
    }
    return [f"Few prompts, so that only large differences can be told: {', '.join(sorted(few))}."] if few else []


def facts(story: Story) -> list[tuple[str, str]]:
    """The settings, in name and value; one value where all runs share it."""
    headers = [subject.evaluation.header for subject in story.subjects]
    rows = [
        ("models", ", ".join(subject.name for subject in story.subjects)),
        ("base model", _shared(story, lambda h: h.base_model or "")),
        ("suite", _shared(story, lambda h: h.suite)),
        ("prompts", _prompts(story)),
        ("likelihood items", _shared(story, _items_of(story))),
        ("system prompt", _shared(story, lambda h: h.system_prompt or "none")),
        ("chat template (SHA-256)", _shared(story, lambda h: _brief(h.chat_template_sha256) or "none")),
        ("decoding", _shared(story, lambda h: ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in h.decoding.items()))),
        ("judges", _shared(story, _judges)),
        ("labels came from", _shared(story, lambda h: h.labelling_judge or "")),
        ("started (UTC)", min(headers, key=lambda h: h.started).started[:16].replace("T", " ")),
        ("took", format_seconds(sum(h.seconds for h in headers)) if any(h.seconds for h in headers) else ""),
        *story.context.items(),
    ]  # fmt: skip
    return [(name, value) for name, value in rows if value]


def _shared(story: Story, of: Callable[[RunHeader], str]) -> str:
    values = [of(subject.evaluation.header) for subject in story.subjects]
    if len(set(values)) == 1:
        return values[0]
    return "; ".join(f"{s.name}: {value or 'unknown'}" for s, value in zip(story.subjects, values, strict=True))


def _prompts(story: Story) -> str:
    sets: dict[str, set[str]] = {}
    for subject in story.subjects:
        for record in subject.evaluation.generations:
            sets.setdefault(record.task, set()).add(record.item)
    return ", ".join(f"{task} {len(items):,}" for task, items in sets.items())


def _items_of(story: Story) -> Callable[[RunHeader], str]:
    counts = {id(s.evaluation.header): len(s.evaluation.likelihoods) for s in story.subjects}
    return lambda header: f"{counts[id(header)]:,}" if counts[id(header)] else ""


def _judges(header: RunHeader) -> str:
    return ", ".join(
        f"{judge.judge_id} ({', template '.join(filter(None, (judge.role, _brief(judge.template_digest))))})"
        for judge in header.judges
    )


def runs(story: Story) -> Table:
    """What every run was made of, by its digest, and how many of its answers count for nothing."""
    counted = ("answers", "truncated", "empty", "unparsed")
    head = [Cell("model"), *map(Cell, ("weights", "suite", "chat template")), *map(Cell, counted)]
    rows = []
    for subject in story.subjects:
        header = subject.evaluation.header
        made_of = (header.model_digest, header.suite_digest, header.chat_template_sha256)
        numbers = (f"{header.counts[name]:,}" if name in header.counts else "–" for name in counted)
        cells = [*(_brief(digest) or "–" for digest in made_of), *numbers]
        rows.append([Cell(subject.name, note=header.model_path or ""), *map(Cell, cells)])
    return Table("The runs, by SHA-256 (first 12 digits; run.json has them whole)", head, rows)


def commands(story: Story) -> list[str]:
    """What was typed, each command once."""
    return list(dict.fromkeys(s.evaluation.header.command for s in story.subjects if s.evaluation.header.command))


def versions(story: Story) -> str:
    """Versions of Python and packages."""
    return (
        _shared(story, lambda h: ", ".join(f"{name} {version}" for name, version in h.versions.items()))
        or "not recorded"
    )


def _brief(digest: str | None) -> str:
    return (digest or "")[:12]
