"""`build_report`: the report's page, one self-contained HTML file in which models' text is only data."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bfpo import __version__
from bfpo.files import created_folder, write_text
from bfpo.reports import diagnostic_panels, provenance, result_panels, summary
from bfpo.reports.attacked import load_red_teaming, measured_folders
from bfpo.reports.packed_answers import answers_of, packed
from bfpo.reports.panel import Panel
from bfpo.reports.redteam_panels import red_team_panels
from bfpo.reports.report import Report, prepare_report
from bfpo.safehelp.records import Evaluation

RESULTS = (
    result_panels.headline, result_panels.refusal, result_panels.differences, result_panels.kinds,
    result_panels.categories, result_panels.attacks, result_panels.likelihoods,
)  # fmt: skip
DIAGNOSTICS = (diagnostic_panels.training, diagnostic_panels.judges, diagnostic_panels.length)
_SCRIPTS = ("data.js", "filter.js", "view.js", "main.js")


def build_report(
    runs: Sequence[Evaluation | Path | str],
    folder: Path | str,
    *,
    title: str = "Safe and helpful?",
    baseline: Path | str | None = None,
    context: Mapping[str, str] | None = None,
    redteam: Sequence[Path | str] = (),
    panels: Sequence[Panel] = (),
) -> Report:
    """Write the report of one or several evaluations: ``report.html``, and each plot as PNG and SVG in ``plots``.

    Args:
        runs: evaluations, or folders written by ``bfpo evaluate``, in the order of the page; if there are none, those
            before and after the rounds of ``redteam``.
        folder: folder to write to; created if missing.
        title: heading of the page.
        baseline: run folder or name of the model to compare the others with; by default the first run.
        context: more settings to list on the page, by name.
        redteam: folders written by ``bfpo redteam``, of one run or of several rounds.
        panels: panels to show before all others.

    Raises:
        BfpoError: if there are no runs, a folder has no finished evaluation, or the baseline isn't among the runs.
    """
    attacks = [Path(name) for name in redteam]
    red_teamed = load_red_teaming(attacks)
    runs = runs or measured_folders(attacks)
    evaluations = [run if isinstance(run, Evaluation) else Evaluation.load(Path(run)) for run in runs]
    folders = [None if isinstance(run, Evaluation) else Path(run).resolve() for run in runs]
    start: str | int | None = None
    if baseline is not None:
        place = Path(baseline).resolve()
        start = folders.index(place) if place in folders else str(baseline)
    report = prepare_report(
        evaluations, Path(folder), title=title, baseline=start, context=context, red_teamed=red_teamed
    )
    write_page(report, panels)
    return report


def write_page(report: Report, first: Sequence[Panel] = ()) -> None:
    """Write the report's page and its plots, after the panels that come first."""
    created_folder(report.plots)
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
    panels = [
        *first,
        *(panel(report) for panel in RESULTS),
        *red_team_panels(report.red_teamed),
        *(panel(report) for panel in DIAGNOSTICS),
    ]
    models, today = report.models, datetime.now(UTC)
    sampled = any(model.evaluation.generations for model in models)
    page = environment.get_template("page.html.jinja").render(
        title=report.title,
        made=f"{today.day} {today:%B %Y}",
        version=__version__,
        sentences=summary.sentences(report),
        scoreboard=summary.scoreboard(models),
        cautions=provenance.cautions(models),
        settings=provenance.settings(models, report.context),
        panels=[_drawn(panel, report.plots) for panel in panels],
        runs=provenance.runs(models),
        commands=provenance.commands(models),
        versions=provenance.versions(models),
        style=Markup((static / "page.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        answers=Markup(packed(answers_of(models))) if sampled else "",
    )
    # A lone surrogate in a model's text has no UTF-8 encoding.
    write_text(report.page, page.encode(errors="replace").decode())


def _drawn(panel: Panel, folder: Path) -> dict[str, Any]:
    """A panel's values for its template, after drawing and writing its plots."""
    drawn = []
    for plot in panel.plots:
        # Trusted markup: matplotlib escapes names of models, sets and categories.
        wide, narrow = map(Markup, plot.write(folder))
        drawn.append({"alt": plot.alt, "wide": wide, "narrow": narrow})
    return {**vars(panel), "drawn": drawn}
