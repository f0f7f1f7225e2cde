"""Export of a run as inspect-ai's logs, one for each task, for its viewer and data frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bfpo.errors import BfpoError
from bfpo.safehelp.lm_eval_export import Record, by_task, item_value, place_of
from bfpo.safehelp.records import Evaluation, GenerationRecord, TaskScore

SCORER = "bfpo"


def export_inspect(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write ``DATE_TASK.eval`` for every task to ``folder/MODEL``, through inspect-ai itself.

    A sample's epoch is the number of the answer, from 1. Its scores are its values in the task's metrics that are means
    of items; the metrics of a task are those of the run, with the ends of the 95 % interval beside each.

    Raises:
        BfpoError: if inspect-ai is not installed.
    """
    try:
        from inspect_ai.log import write_eval_log  # pyright: ignore[reportMissingImports, reportUnknownVariableType]
    except ImportError as error:
        raise BfpoError(f"this needs inspect-ai; install it with pip install 'bfpo[inspect]' ({error})") from error
    place, date = place_of(evaluation, folder)
    written = []
    for task, records in by_task(evaluation).items():
        scores = [score for score in evaluation.tasks if score.task == task]
        path = place / f"{date}_{task}.eval"
        write_eval_log(_log(evaluation, task, records, scores), str(path))
        written.append(path)
    return written


def _log(evaluation: Evaluation, task: str, records: Sequence[Record], scores: Sequence[TaskScore]) -> Any:
    from inspect_ai.log import (  # pyright: ignore[reportMissingImports]
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalMetric,
        EvalResults,
        EvalScore,
        EvalSpec,
    )

    header = evaluation.header
    items = list(dict.fromkeys(record.item for record in records))
    metrics = {}
    for score in scores:
        ends = {"low": score.estimate.low, "high": score.estimate.high, "n": score.estimate.n}
        metrics[score.metric] = EvalMetric(name=score.metric, value=score.estimate.value, metadata=ends)
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=header.started or "1970-01-01T00:00:00+00:00",
            task=f"{header.suite}/{task}",
            dataset=EvalDataset(name=task, samples=len(items), sample_ids=items),
            model=header.model,
            model_args={"path": header.model_path},
            config=EvalConfig(epochs=1 + max(getattr(record, "sample", 0) for record in records)),
            packages=dict(header.versions),
            metadata={"judges": [vars(judge) for judge in header.judges], "decoding": dict(header.decoding)},
        ),
        results=EvalResults(
            total_samples=len(records),
            completed_samples=len(records),
            scores=[EvalScore(name=SCORER, scorer=SCORER, metrics=metrics)],
        ),
        samples=[_sample(record, scores, header.model) for record in records],
    )


def _sample(record: Record, scores: Sequence[TaskScore], model: str) -> Any:
    from inspect_ai.log import EvalSample  # pyright: ignore[reportMissingImports]
    from inspect_ai.model import ModelOutput  # pyright: ignore[reportMissingImports]
    from inspect_ai.scorer import Score  # pyright: ignore[reportMissingImports]

    values = {score.metric: value for score in scores if (value := item_value(record, score.metric)) is not None}
    metadata: dict[str, Any] = {"category": record.category, "cluster": record.cluster}
    if not isinstance(record, GenerationRecord):
        return EvalSample(
            id=record.item, epoch=1, input=record.prompt, choices=list(record.choices),
            target=[str(at) for at, correct in enumerate(record.correct) if correct],
            scores={name: Score(value=value) for name, value in values.items()},
            metadata=metadata | {"logps": list(record.logps), "scored": record.scored},
        )  # fmt: skip
    verdict = record.verdicts[0] if record.verdicts else None
    explanation = verdict.raw if verdict else None
    output = ModelOutput.from_content(
        model, record.answer, "max_tokens" if record.truncated else "stop", error=record.failure or None
    )
    metadata |= {"kind": record.kind, "attack": record.attack, "answer_kind": record.answer_kind}
    metadata |= {"p_safe": verdict and verdict.p_safe, "p_help": record.p_help}
    metadata |= {"thinking": record.thinking, "refusal": record.refusal}
    return EvalSample(
        id=record.item, epoch=record.sample + 1, input=record.prompt, target="", output=output, metadata=metadata,
        scores={
            name: Score(value=value, answer=record.answer_kind, explanation=explanation)
            for name, value in values.items()
        },
    )  # fmt: skip
