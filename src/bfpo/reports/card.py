"""The model card for the Hugging Face Hub, with the evaluation's figures in ``model-index``."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

import jinja2
from huggingface_hub import EvalResult, ModelCard

from bfpo import __version__
from bfpo.reports.breakdowns import count_of
from bfpo.reports.formats import direction, format_estimate, format_number
from bfpo.reports.provenance import cautions, settings
from bfpo.reports.report import report_models
from bfpo.safehelp.figures import FIGURES, label_of
from bfpo.safehelp.records import Evaluation, TaskScore
from bfpo.safehelp.training_records import training_record
from bfpo.training.model_card import base_model, card_data, plain, shown_settings, source_lines


def model_card(evaluation: Evaluation) -> ModelCard:
    """The card of one evaluated model, without a license, which its owner must choose.

    Training data and settings come from ``run.json`` in the model's folder, if ``bfpo train`` wrote one.
    """
    models = report_models([evaluation])
    training = training_record(evaluation.header.model_path)
    data = card_data(training, evaluation.model, tags=["safehelp"], eval_results=list(_results(evaluation)))
    base = data.base_model = evaluation.header.base_model or base_model(training)
    # No HTML escapes in Markdown; `plain` escapes untrusted text.
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((files("bfpo.reports") / "templates" / "card.md.jinja").read_text("utf-8"))
    content = template.render(
        card_data=data.to_yaml(),
        name=plain(evaluation.model),
        base=plain(str(base)) if base else "",
        settings=shown_settings(training),
        sources=list(source_lines(training)),
        headline=[
            (FIGURES[name].label, format_estimate(e), f"{e.n:,}", direction(FIGURES[name].higher_is_better))
            for name, e in evaluation.scores.items()
            if name in FIGURES
        ],
        tasks=[
            (plain(t.task), label_of(t.metric), format_estimate(t.estimate), _count(evaluation, t),
             direction(t.higher_is_better), "" if t.chance is None else format_number(t.chance))
            for t in evaluation.tasks
        ],
        measured=[(name, plain(value)) for name, value in settings(models, {}) if name != "models"],
        cautions=[plain(line) for line in cautions(models)],
        command=" ".join(evaluation.header.command.split()).replace("```", "'''"),
        version=__version__,
    )  # fmt: skip
    return ModelCard(content)


def _count(evaluation: Evaluation, score: TaskScore) -> str:
    return count_of([r for r in evaluation.generations if r.task == score.task], score.metric, score.estimate.n)


def _results(evaluation: Evaluation) -> Iterable[EvalResult]:
    suite, figures = evaluation.header.suite, [name for name in evaluation.scores if name in FIGURES]
    place, scores, tasks = f"safehelp-{suite}", evaluation.scores, evaluation.tasks
    rows = [(place, f"SafeHelp ({suite})", name, scores[name], f"{scores[name].n:,}") for name in figures]
    rows += [(f"{place}/{t.task}", t.task, t.metric, t.estimate, _count(evaluation, t)) for t in tasks]
    for dataset, title, metric, estimate, n in rows:
        interval = f"[{estimate.low:.4f}, {estimate.high:.4f}]"
        yield EvalResult(
            task_type="text-generation",
            dataset_type=dataset,
            dataset_name=title,
            dataset_revision=evaluation.header.suite_digest or None,
            metric_type=metric,
            metric_name=f"{label_of(metric)}, 95 % interval {interval}, n = {n}",
            metric_value=round(estimate.value, 4),
        )
