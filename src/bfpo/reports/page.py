"""The page: one self-contained HTML file in which a model's text is data and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bfpo.reports.pareto import as_svg, pareto_figure, save_png
from bfpo.reports.table import GENERATION, HIGHER_IS_BETTER, LIKELIHOOD, format_estimate
from bfpo.safehelp.records import Evaluation

# In the order of a stacked bar, from what one wants to what one doesn't.
VERDICTS = ("full", "partial", "vague", "refusal_with_alternative", "refusal", "wrong", "incoherent")
KINDS = ("benign", "borderline", "harmful")


@dataclass(frozen=True)
class ReportFiles:
    """Where a report's files are."""

    page: Path
    pareto: Path


def write_report(
    evaluations: Sequence[Evaluation],
    folder: Path,
    *,
    title: str,
    baseline: str | None = None,
    context: Mapping[str, str] | None = None,
) -> ReportFiles:
    """Write ``report.html`` and ``pareto.png``.

    Args:
        evaluations: what to show, in this order; all of the same suite.
        folder: where to write.
        title: the page's heading.
        baseline: the model that arrows start from.
        context: what else the header says, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure = pareto_figure(evaluations, baseline)
    files_written = ReportFiles(folder / "report.html", folder / "pareto.png")
    save_png(figure, files_written.pareto)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(files("bfpo.reports") / "templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("page.html.jinja").render(
        title=title,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        context=dict(context or {}) | _header(evaluations),
        # Our own drawing, whose only text from outside (models' names) matplotlib has escaped.
        pareto=Markup(as_svg(figure)),
        columns=[(name, HIGHER_IS_BETTER[name], evaluations[0].scores[name].n) for name in GENERATION + LIKELIHOOD],
        rows=[(e.model, [format_estimate(e.scores[name]) for name in GENERATION + LIKELIHOOD]) for e in evaluations],
        bars=[(kind, [(e.model, _shares(e, kind)) for e in evaluations]) for kind in KINDS],
        verdicts=VERDICTS,
        answers=Markup(_as_json(_answers(evaluations))),
    )
    files_written.page.write_text(page, encoding="utf-8")
    return files_written


def _header(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    first = evaluations[0]
    decoding = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in first.decoding.items())
    truncated = sum(record.truncated for e in evaluations for record in e.generations)
    answers = sum(len(e.generations) for e in evaluations)
    return {
        "suite": first.suite,
        "decoding": decoding,
        "answers": f"{answers:,}, of which {truncated:,} were cut at the token limit",
    }


def _shares(evaluation: Evaluation, kind: str) -> list[tuple[str, float]]:
    counts = Counter(record.verdict for record in evaluation.generations if record.kind == kind)
    total = counts.total() or 1
    return [(verdict, counts[verdict] / total) for verdict in VERDICTS if counts[verdict]]


def _answers(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """The models' first answers by prompt, for the browser of answers."""
    items: dict[str, dict[str, Any]] = {}
    for at, evaluation in enumerate(evaluations):
        for record in evaluation.generations:
            if record.sample:
                continue
            item = items.setdefault(
                record.item,
                {"kind": record.kind, "category": record.category, "prompt": record.prompt, "answers": {}},
            )
            item["answers"][at] = [record.answer, record.verdict, record.is_safe]
    return {"models": [e.model for e in evaluations], "items": list(items.values())}


def _as_json(value: Any) -> str:
    """JSON that can stand inside a script element: no character of it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
