"""Bands that the recipe of an evaluated model expects, beside its figures in training and evaluation."""

from __future__ import annotations

from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.training_records import training_record, training_setting
from bfpo.training.expected import Expected, compared, last_metrics


def expected_of(evaluation: Evaluation) -> list[Expected]:
    """The recipe's ``expected`` with the run's last metrics and this evaluation's figures; empty without one."""
    record = training_record(evaluation.header.model_path)
    figures = {name: estimate.value for name, estimate in evaluation.scores.items()}
    return compared(training_setting(record, "expected") or {}, last_metrics(record.get("log", [])) | figures)
