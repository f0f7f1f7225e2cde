"""The model card: what Hugging Face's Hub shows of a model, with its figures in ``model-index``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from bfpo import __version__
from bfpo.reports.facts import cautions, facts
from bfpo.reports.formats import format_number
from bfpo.reports.panel import Story
from bfpo.reports.subjects import subjects_of
from bfpo.reports.table import HIGHER_IS_BETTER, format_estimate
from bfpo.reports.training_log import training_record
from bfpo.safehelp.records import Evaluation
from bfpo.statistics.intervals import Estimate

# Of a recipe: what decides the result.
_SHOWN = (
    "stage", "loss_type", "beta", "b1", "alpha", "learning_rate", "batch_size", "max_steps", "num_train_epochs",
    "max_length", "trainable", "lora", "precision", "seed",
)  # fmt: skip


def model_card(evaluation: Evaluation) -> ModelCard:
    """The card of one evaluated model: metadata, data, settings, intended use, figures with intervals, limits.

    What the model's own folder (``run.json`` of ``bfpo train``) says of its training goes in too; a licence is for
    its owner to name and is left open.
    """
    story = Story(evaluation.model, subjects_of([evaluation]))
    training = training_record(evaluation) or {}
    base = evaluation.header.base_model or _setting(training, "model")
    data = ModelCardData(
        base_model=base,
        datasets=_hub_datasets(training) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["safehelp", *(["bfpo"] if _setting(training, "loss_type") == "bfpo" else [])],
        model_name=evaluation.model,
        eval_results=list(_results(evaluation)),
    )
    # Markdown, where jinja's escaping for HTML would be wrong; `_plain` escapes what comes from outside.
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((files("bfpo.reports") / "templates" / "card.md.jinja").read_text("utf-8"))
    content = template.render(
        card_data=data.to_yaml(),
        name=_plain(evaluation.model),
        base=_plain(str(base)) if base else "",
        settings=[(key, _plain(str(value))) for key in _SHOWN if (value := _setting(training, key)) is not None],
        sources=[_plain(line) for line in _sources(training)],
        headline=[_line(name, e) for name, e in evaluation.scores.items() if name in HIGHER_IS_BETTER],
        tasks=[
            (_plain(t.task), t.metric, format_estimate(t.estimate), f"{t.estimate.n:,}", _arrow(t.higher_is_better),
             "" if t.chance is None else format_number(t.chance))
            for t in evaluation.tasks
        ],
        facts=[(name, _plain(value)) for name, value in facts(story) if name != "models"],
        cautions=[_plain(line) for line in cautions(story)],
        command=" ".join(evaluation.header.command.split()).replace("```", "'''"),
        version=__version__,
    )  # fmt: skip
    return ModelCard(content)


def _results(evaluation: Evaluation) -> Iterable[EvalResult]:
    suite = evaluation.header.suite
    for name, estimate in evaluation.scores.items():
        if name in HIGHER_IS_BETTER:
            yield _result(f"safehelp-{suite}", f"SafeHelp ({suite})", name, estimate, evaluation)
    for task in evaluation.tasks:
        yield _result(f"safehelp-{suite}/{task.task}", task.task, task.metric, task.estimate, evaluation)


def _result(dataset: str, title: str, metric: str, estimate: Estimate, evaluation: Evaluation) -> EvalResult:
    interval = f"[{estimate.low:.4f}, {estimate.high:.4f}]"
    return EvalResult(
        task_type="text-generation",
        dataset_type=dataset,
        dataset_name=title,
        dataset_revision=evaluation.header.suite_digest or None,
        metric_type=metric,
        metric_name=f"{metric.replace('_', '-')}, 95 % interval {interval}, n = {estimate.n}",
        metric_value=round(estimate.value, 4),
    )


def _line(name: str, estimate: Estimate) -> tuple[str, str, str, str]:
    title = name.replace("likelihood/", "likelihood, ").replace("_", "-")
    return title, format_estimate(estimate), f"{estimate.n:,}", _arrow(HIGHER_IS_BETTER[name])


def _arrow(higher: bool) -> str:
    return "more" if higher else "less"


def _setting(training: Mapping[str, Any], key: str) -> Any:
    entry = training.get("config", {}).get(key)
    return entry.get("value") if isinstance(entry, Mapping) else None


def _sources(training: Mapping[str, Any]) -> Iterable[str]:
    for source in training.get("data", ()):
        yield f"{source['name']} ({source.get('role', 'main')}): {source.get('read', 0):,} rows read"


def _hub_datasets(training: Mapping[str, Any]) -> list[str]:
    """Sources that are names on the Hub: one slash, and no file."""
    paths = [source.get("path", "") for source in _setting(training, "data") or ()]
    return [
        path for path in paths if path.count("/") == 1 and "." not in path.rsplit("/", 1)[1] and path[0] not in "./"
    ]


def _plain(text: str) -> str:
    """Text that stays text within a Markdown table."""
    text = " ".join(text.split())
    for character in "\\`*_{}[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text
