"""The model card for the Hugging Face Hub, with the evaluation's figures in ``model-index``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from bfpo import __version__
from bfpo.reports.formats import direction, format_estimate, format_number
from bfpo.reports.provenance import cautions, settings
from bfpo.reports.report import report_models
from bfpo.safehelp.figures import FIGURES, label_of
from bfpo.safehelp.records import Evaluation, training_record, training_setting

# The settings of a recipe that decide the result.
_SHOWN = (
    "stage", "loss_type", "beta", "b1", "alpha", "learning_rate", "batch_size", "max_steps", "num_train_epochs",
    "max_length", "trainable", "lora", "precision", "seed",
)  # fmt: skip


def model_card(evaluation: Evaluation) -> ModelCard:
    """The card of one evaluated model, without a license, which its owner must choose.

    Training data and settings come from ``run.json`` in the model's folder, if ``bfpo train`` wrote one.
    """
    models = report_models([evaluation])
    training = training_record(evaluation.header.model_path)
    base = evaluation.header.base_model or training_setting(training, "model")
    data = ModelCardData(
        base_model=base,
        datasets=_hub_datasets(training) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["safehelp", *(["bfpo"] if training_setting(training, "loss_type") == "bfpo" else [])],
        model_name=evaluation.model,
        eval_results=list(_results(evaluation)),
    )
    # No HTML escapes in Markdown; `_plain` escapes untrusted text.
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((files("bfpo.reports") / "templates" / "card.md.jinja").read_text("utf-8"))
    content = template.render(
        card_data=data.to_yaml(),
        name=_plain(evaluation.model),
        base=_plain(str(base)) if base else "",
        settings=[
            (key, _plain(str(value))) for key in _SHOWN if (value := training_setting(training, key)) is not None
        ],
        sources=[_plain(line) for line in _sources(training)],
        headline=[
            (FIGURES[name].label, format_estimate(e), f"{e.n:,}", direction(FIGURES[name].higher_is_better))
            for name, e in evaluation.scores.items()
            if name in FIGURES
        ],
        tasks=[
            (_plain(t.task), label_of(t.metric), format_estimate(t.estimate), f"{t.estimate.n:,}",
             direction(t.higher_is_better), "" if t.chance is None else format_number(t.chance))
            for t in evaluation.tasks
        ],
        measured=[(name, _plain(value)) for name, value in settings(models, {}) if name != "models"],
        cautions=[_plain(line) for line in cautions(models)],
        command=" ".join(evaluation.header.command.split()).replace("```", "'''"),
        version=__version__,
    )  # fmt: skip
    return ModelCard(content)


def _results(evaluation: Evaluation) -> Iterable[EvalResult]:
    suite, figures = evaluation.header.suite, [name for name in evaluation.scores if name in FIGURES]
    rows = [(f"safehelp-{suite}", f"SafeHelp ({suite})", name, evaluation.scores[name]) for name in figures]
    rows += [(f"safehelp-{suite}/{task.task}", task.task, task.metric, task.estimate) for task in evaluation.tasks]
    for dataset, title, metric, estimate in rows:
        interval = f"[{estimate.low:.4f}, {estimate.high:.4f}]"
        yield EvalResult(
            task_type="text-generation",
            dataset_type=dataset,
            dataset_name=title,
            dataset_revision=evaluation.header.suite_digest or None,
            metric_type=metric,
            metric_name=f"{label_of(metric)}, 95 % interval {interval}, n = {estimate.n}",
            metric_value=round(estimate.value, 4),
        )


def _sources(training: Mapping[str, Any]) -> Iterable[str]:
    for source in training.get("data", ()):
        yield f"{source['name']} ({source.get('role', 'main')}): {source.get('read', 0):,} rows read"


def _hub_datasets(training: Mapping[str, Any]) -> list[str]:
    """The sources that are Hub names: one slash, and not a file."""
    paths = [source.get("path", "") for source in training_setting(training, "data") or ()]
    return [
        path for path in paths if path.count("/") == 1 and "." not in path.rsplit("/", 1)[1] and path[0] not in "./"
    ]


def _plain(text: str) -> str:
    """Text escaped for a Markdown table."""
    text = " ".join(text.split())
    for character in "\\`*_{}[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text
