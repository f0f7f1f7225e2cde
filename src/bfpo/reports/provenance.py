"""Provenance of the figures: warnings, settings, digests of the runs, commands and versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bfpo.reports.formats import format_estimate, format_number, format_seconds
from bfpo.reports.panel import Column, Table, TableCell
from bfpo.reports.report import ReportModel
from bfpo.safehelp.cautions import cautions as run_cautions
from bfpo.safehelp.figures import FIGURES
from bfpo.safehelp.records import Evaluation, RunHeader

_ENOUGH_MASS, _FEW = 0.9, 100
# Counts that few runs have.
_SOMETIMES = (
    "unanswered",
    "provider_refusals",
    "only_thinking",
    "uncompared",
    "unknown_refusals",
    "prompt_tokens",
    "completion_tokens",
    "reasoning_tokens",
)


def cautions(models: Sequence[ReportModel]) -> list[str]:
    """Warnings to show before the figures; what is true of several models is said once."""
    owners: dict[str, list[str]] = {}
    for model in models:
        for line in run_cautions(model.evaluation):
            owners.setdefault(line.rstrip("."), []).append(model.name)
    lines: dict[str, list[str]] = {}
    for line, names in owners.items():
        is_common = len(names) == len(models) > 1
        lines.setdefault("all models" if is_common else ", ".join(names), []).append(line)
    by_model = [f"{names}: {'; '.join(own)}." for names, own in lines.items()]
    return [*by_model, *_low_mass(models), *_few(models)]


def _low_mass(models: Sequence[ReportModel]) -> list[str]:
    records = [record for model in models for record in model.evaluation.generations]
    masses = [v.mass for record in records for v in record.verdicts[:1] if v.mass is not None]
    low = sum(mass < _ENOUGH_MASS for mass in masses)
    if not masses or low <= 0.01 * len(masses):
        return []
    return [
        f"For {low:,} of {len(masses):,} answers, the judge gave its valid labels less than "
        f"{format_number(_ENOUGH_MASS, 1)} of the probability."
    ]


def _few(models: Sequence[ReportModel]) -> list[str]:
    few = {
        f"{FIGURES[name].label} ({estimate.n})"
        for model in models
        for name, estimate in model.evaluation.scores.items()
        if estimate.n < _FEW and name in FIGURES
    }
    return [f"With so few prompts, only large differences show: {', '.join(sorted(few))}."] if few else []


def settings(models: Sequence[ReportModel], context: Mapping[str, str]) -> list[tuple[str, str]]:
    """The settings by name: one value if all runs share it, otherwise one for each model."""
    headers = [model.evaluation.header for model in models]
    rows = [
        ("models", ", ".join(model.name for model in models)),
        ("base model", _shared(models, lambda run: run.header.base_model or "")),
        ("suite", _shared(models, lambda run: run.header.suite)),
        ("prompts", _prompts(models)),
        ("tasks left out", _shared(models, lambda run: ", ".join(run.header.left_out))),
        ("likelihood items", _shared(models, lambda run: f"{len(run.likelihoods):,}" if run.likelihoods else "")),
        ("judge's errors", _shared(models, _judge_error)),
        ("system prompt", _shared(models, lambda run: run.header.system_prompt or "none")),
        ("chat template (SHA-256)", _shared(models, lambda run: _brief(run.header.chat_template_sha256) or "none")),
        ("decoding", _shared(models, _decoding)),
        ("judges", _shared(models, _judges)),
        ("training labels from", _shared(models, lambda run: run.header.labelling_judge or "")),
        ("started (UTC)", min(header.started for header in headers)[:16].replace("T", " ")),
        ("run time", format_seconds(sum(h.seconds for h in headers)) if any(h.seconds for h in headers) else ""),
        *context.items(),
    ]  # fmt: skip
    return [(name, value) for name, value in rows if value]


def _shared(models: Sequence[ReportModel], of: Callable[[Evaluation], str]) -> str:
    values = [of(model.evaluation) for model in models]
    if len(set(values)) == 1:
        return values[0]
    return "; ".join(f"{model.name}: {value or '–'}" for model, value in zip(models, values, strict=True))


def _prompts(models: Sequence[ReportModel]) -> str:
    sets: dict[str, set[str]] = {}
    for model in models:
        for record in model.evaluation.generations:
            sets.setdefault(record.task, set()).add(record.item)
    return ", ".join(f"{task} {len(items):,}" for task, items in sets.items())


def _decoding(run: Evaluation) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in run.header.decoding.items())


def _judge_error(run: Evaluation) -> str:
    error = run.header.judge_error
    if error is None:
        return ""
    return f"sensitivity {format_estimate(error.sensitivity)}, specificity {format_estimate(error.specificity)}"


def _judges(run: Evaluation) -> str:
    return ", ".join(
        f"{judge.judge_id} ({', template '.join(filter(None, (judge.role, _brief(judge.template_digest))))})"
        for judge in run.header.judges
    )


def runs(models: Sequence[ReportModel]) -> Table:
    """Digests of the runs, with counts of answers and of unusable ones."""

    def digest(title: str, of: Callable[[RunHeader], str | None]) -> Column:
        return Column(title, lambda model: _brief(of(model.evaluation.header)) or "–")

    def count(name: str) -> Column:
        def cell(model: ReportModel) -> str:
            counts = model.evaluation.header.counts
            return f"{counts[name]:,}" if name in counts else "–"

        return Column(name.replace("_", " "), cell)

    columns = (
        Column("model", lambda m: TableCell(m.name, note=_places(m.evaluation.header))),
        digest("weights", lambda header: header.model_digest),
        digest("suite", lambda header: header.suite_digest),
        digest("chat template", lambda header: header.chat_template_sha256),
        count("answers"),
        count("truncated"),
        count("empty"),
        count("unparsed"),
        *(count(name) for name in _SOMETIMES if any(m.evaluation.header.counts.get(name) for m in models)),
        *([Column("cost", _cost)] if any(m.evaluation.header.cost is not None for m in models) else []),
    )
    return Table.of("The runs, by SHA-256 (first 12 digits; run.json has all of them)", columns, models)


def _cost(model: ReportModel) -> str:
    cost = model.evaluation.header.cost
    return "–" if cost is None else f"{cost:,.4g}"


def commands(models: Sequence[ReportModel]) -> list[str]:
    """The distinct commands of the runs."""
    return list(dict.fromkeys(m.evaluation.header.command for m in models if m.evaluation.header.command))


def versions(models: Sequence[ReportModel]) -> str:
    """Versions of Python and packages."""
    found = _shared(models, lambda run: ", ".join(f"{name} {version}" for name, version in run.header.versions.items()))
    return found or "not recorded"


def _places(header: RunHeader) -> str:
    """Where the model was, at several addresses if a server's changed during the run."""
    return ", ".join(filter(None, (header.model_path, *header.other_paths)))


def _brief(digest: str | None) -> str:
    return (digest or "")[:12]
