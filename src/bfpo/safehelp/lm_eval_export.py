"""Export of a run in the files that lm-eval 0.4 writes with ``--log_samples``, for tools that read those."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bfpo.files import write_json, write_lines
from bfpo.safehelp.figures import ANSWER_FIGURES
from bfpo.safehelp.metrics import METRICS
from bfpo.safehelp.records import Evaluation, GenerationRecord, LikelihoodRecord, TaskScore


def export_lm_eval(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write ``results_DATE.json`` and a ``samples_TASK_DATE.jsonl`` per task to ``folder/MODEL``.

    Standard errors are "N/A", because lm-eval's take every item as independent; the intervals over clusters are under
    ``bfpo``. Metrics that are not means of items are not in the samples.

    Returns:
        The files, that with the results first.
    """
    place, date = place_of(evaluation, folder)
    results = place / f"results_{date}.json"
    write_json(results, _results(evaluation), ensure_ascii=False)
    written = [results]
    for task, records in by_task(evaluation).items():
        scores = [score for score in evaluation.tasks if score.task == task]
        lines = (json.dumps(sample, ensure_ascii=False) + "\n" for sample in _samples(records, scores))
        path = place / f"samples_{task}_{date}.jsonl"
        write_lines(path, lines)
        written.append(path)
    return written


Record = GenerationRecord | LikelihoodRecord


def place_of(evaluation: Evaluation, folder: Path) -> tuple[Path, str]:
    """The folder of the run's model, made if it is missing, and the run's start for names of files."""
    name = re.sub(r"[\"<>:/|\\?*\[\]]+", "__", evaluation.header.model)
    place = folder / ("__" if set(name) == {"."} else name)
    place.mkdir(parents=True, exist_ok=True)
    return place, evaluation.header.started[:19].replace(":", "-") or "undated"


def by_task(evaluation: Evaluation) -> dict[str, list[Record]]:
    """The records of every task, answers first."""
    found: dict[str, list[Record]] = {}
    for record in [*evaluation.generations, *evaluation.likelihoods]:
        found.setdefault(record.task, []).append(record)
    return found


def _results(evaluation: Evaluation) -> dict[str, Any]:
    header, tasks = evaluation.header, by_task(evaluation)
    results: dict[str, dict[str, Any]] = {task: {"alias": task} for task in tasks}
    intervals: dict[str, dict[str, Any]] = {task: {} for task in tasks}
    better: dict[str, dict[str, bool]] = {task: {} for task in tasks}
    for score in evaluation.tasks:
        name, estimate = score.metric, score.estimate
        results[score.task] |= {f"{name},none": estimate.value, f"{name}_stderr,none": "N/A"}
        intervals[score.task][name] = [estimate.low, estimate.high]
        better[score.task][name] = score.higher_is_better
    counts = {task: len({record.item for record in records}) for task, records in tasks.items()}
    return {
        "results": results,
        "group_subtasks": {task: [] for task in tasks},
        "configs": {task: {"task": task} for task in tasks},
        "versions": {task: header.prompts_digest.get(task, "")[:12] for task in tasks},
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": better,
        "n-samples": {task: {"original": count, "effective": count} for task, count in counts.items()},
        "config": {"model": "bfpo", "model_args": header.model_path, "gen_kwargs": dict(header.decoding)},
        "model_source": "bfpo",
        "model_name": header.model,
        "system_instruction": header.system_prompt,
        "chat_template_sha": header.chat_template_sha256,
        "total_evaluation_time_seconds": str(header.seconds),
        "bfpo": {
            "suite": header.suite,
            "judges": [vars(judge) for judge in header.judges],
            "intervals": intervals,
            "versions": dict(header.versions),
        },
    }


def _samples(records: Sequence[Record], scores: Sequence[TaskScore]) -> Iterator[dict[str, Any]]:
    numbers: dict[str, int] = {}
    for record in records:
        values = {score.metric: value for score in scores if (value := item_value(record, score.metric)) is not None}
        yield {
            "doc_id": numbers.setdefault(record.item, len(numbers)),
            "doc": {"item": record.item, "prompt": record.prompt, "category": record.category},
            **_exchange(record),
            "filter": "none",
            "metrics": list(values),
            "doc_hash": _hash(f"{record.task}/{record.item}"),
            "prompt_hash": _hash(record.prompt),
            **values,
        }


def _exchange(record: Record) -> dict[str, Any]:
    """The target, the model's inputs and its outputs."""
    if isinstance(record, GenerationRecord):
        return {
            "target": "",
            "target_hash": _hash(""),
            "arguments": {"gen_args_0": {"arg_0": record.rendered, "arg_1": ""}},
            "resps": [[record.answer]],
            "filtered_resps": [record.answer],
        }
    target = str([at for at, correct in enumerate(record.correct) if correct])
    pairs = [(c, record.prompt) if record.scored == "prompt" else (record.prompt, c) for c in record.choices]
    return {
        "target": target,
        "target_hash": _hash(target),
        "arguments": {f"gen_args_{at}": {"arg_0": first, "arg_1": second} for at, (first, second) in enumerate(pairs)},
        "resps": [[[str(logp)]] for logp in record.logps],
        "filtered_resps": [[str(logp)] for logp in record.logps],
    }


def item_value(record: Record, metric: str) -> float | None:
    """The item's value in a metric; None if the metric is not a mean over such items."""
    if isinstance(record, GenerationRecord):
        figure = ANSWER_FIGURES.get(metric)
        counts = figure and record.kind in figure.kinds and figure.covers(record)
        return float(figure.value(record)) if figure and counts else None
    return METRICS[metric].parts(record)[0] if metric in METRICS and METRICS[metric].is_mean else None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
