"""The page: one self-contained HTML file in which a model's text is data and nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bfpo import __version__
from bfpo.reports import background, facts, results
from bfpo.reports.answers import answers_of, packed
from bfpo.reports.drawing import Plot
from bfpo.reports.panel import Panel, Story
from bfpo.reports.subjects import subjects_of
from bfpo.reports.training_log import training_record
from bfpo.reports.verdict import verdict
from bfpo.safehelp.compare import compare_models, why_incomparable
from bfpo.safehelp.records import Evaluation

PANELS = (
    results.headline, results.refusal, results.differences, results.kinds, results.categories, results.attacks,
    results.likelihoods, background.training, background.judges, background.length,
)  # fmt: skip
_SCRIPTS = ("data.js", "filter.js", "view.js", "main.js")


@dataclass(frozen=True)
class ReportFiles:
    """Where a report's files are.

    Attributes:
        page: the page.
        plots: the folder with every plot as PNG and SVG.
    """

    page: Path
    plots: Path


def tell(
    evaluations: Sequence[Evaluation],
    *,
    title: str,
    baseline: str | int | None = None,
    context: Mapping[str, str] | None = None,
) -> Story:
    """Name the models, compare each with the baseline, and read how those in folders of ``bfpo train`` were trained.

    Args:
        evaluations: what to show, in this order.
        title: the page's heading.
        baseline: model that others are compared with, or its place; by default the first.
        context: what else the header says, by name.

    Raises:
        BfpoError: if there is no evaluation, or none of the baseline.
    """
    subjects = subjects_of(evaluations, baseline)
    start = next((subject for subject in subjects if subject.is_baseline), None)
    others = [subject for subject in subjects if start and subject is not start]
    reasons = {s.number: why_incomparable(start.evaluation, s.evaluation) for s in others if start}
    incomparable = {number: reason for number, reason in reasons.items() if reason}
    rivals = [subject for subject in others if subject.number not in incomparable]
    found = compare_models([start.evaluation], [[s.evaluation] for s in rivals]) if start and rivals else []
    comparisons = {s.number: comparison for s, comparison in zip(rivals, found, strict=True)}
    training = {s.number: record for s in subjects if (record := training_record(s.evaluation))}
    return Story(title, subjects, comparisons, incomparable, training, dict(context or {}))


def write_report(story: Story, folder: Path) -> ReportFiles:
    """Write ``report.html``, and ``plots`` with each plot as PNG and SVG."""
    written = ReportFiles(folder / "report.html", folder / "plots")
    written.plots.mkdir(parents=True, exist_ok=True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(files("bfpo.reports") / "templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    static = files("bfpo.reports") / "static"
    script = (
        '"use strict";\n(() => {\n' + "\n".join((static / name).read_text("utf-8") for name in _SCRIPTS) + "})();\n"
    )
    panels = [_drawn(panel(story), written.plots) for panel in PANELS]
    sampled = any(subject.evaluation.generations for subject in story.subjects)
    page = environment.get_template("page.html.jinja").render(
        story=story,
        made=f"{(now := datetime.now(UTC)).day} {now:%B %Y}",
        version=__version__,
        verdict=verdict(story),
        scoreboard=facts.scoreboard(story),
        cautions=facts.cautions(story),
        facts=facts.facts(story),
        panels=panels,
        runs=facts.runs(story),
        commands=facts.commands(story),
        versions=facts.versions(story),
        style=Markup((static / "page.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        answers=Markup(packed(answers_of(story.subjects))) if sampled else "",
    )
    # A lone surrogate in a model's text has no UTF-8.
    written.page.write_text(page, encoding="utf-8", errors="replace")
    return written


def _drawn(panel: Panel, folder: Path) -> dict[str, Any]:
    """A panel as its template reads it, its plots drawn and written."""
    return {**vars(panel), "drawn": [_plot(plot, folder) for plot in panel.plots]}


def _plot(plot: Plot, folder: Path) -> dict[str, Any]:
    # Our own drawings, whose only text from outside (names of models, sets, categories) matplotlib has escaped.
    wide, narrow = (Markup(svg) for svg in plot.write(folder))
    return {"alt": plot.alt, "wide": wide, "narrow": narrow}
