"""Bi-Factorial Preference Optimization: train, label and measure language models that are safe and helpful.

The names in ``__all__`` are the public API (docs/api.md, docs/versions.md); anything else may move in any release.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bfpo.errors import BfpoError, RunError
    from bfpo.generation.endpoint_generator import EndpointGenerator
    from bfpo.generation.local_generator import LocalGenerator
    from bfpo.generation.protocol import Completion, Decoding, Generator, ModelIdentity, SampleRequest, as_messages
    from bfpo.generation.recorded_answers import RecordedAnswers
    from bfpo.groups import GroupLabels, GroupLogps
    from bfpo.judges.cache import VerdictCache
    from bfpo.judges.helpfulness import load_helpfulness_judge
    from bfpo.judges.preference import AnswerPair, HelpfulnessJudge, Preference
    from bfpo.judges.registry import load_judge
    from bfpo.judges.verdict import Exchange, Judge, Verdict
    from bfpo.labeling.filling import LabeledSet
    from bfpo.labeling.run import label
    from bfpo.models import load_model, load_tokenizer
    from bfpo.objectives.bfpo import GlobalPreference
    from bfpo.objectives.bfpo_loss import bfpo_loss
    from bfpo.objectives.registry import Objective, build_objective
    from bfpo.preferences.loading import load_preferences
    from bfpo.preferences.schema import PreferenceDataError
    from bfpo.reports.page import build_report
    from bfpo.reports.report import Report
    from bfpo.safehelp.compare import Comparison, compare
    from bfpo.safehelp.evaluate import evaluate
    from bfpo.safehelp.records import Evaluation
    from bfpo.safehelp.suites import load_suite
    from bfpo.statistics.intervals import Estimate
    from bfpo.statistics.judge_error import ErrorRates
    from bfpo.training.config import BFPOConfig
    from bfpo.training.run import TrainedRun, train
    from bfpo.training.trainer import BFPOTrainer
    from bfpo.training.training_data import Blend, TrainingSource

__version__ = "0.1.0"

# What is imported when it is first used, from which module: ``bfpo --help`` must not wait for torch.
_NAMES = {
    "errors": ("BfpoError", "RunError"),
    "generation.endpoint_generator": ("EndpointGenerator",),
    "generation.local_generator": ("LocalGenerator",),
    "generation.protocol": ("Completion", "Decoding", "Generator", "ModelIdentity", "SampleRequest", "as_messages"),
    "generation.recorded_answers": ("RecordedAnswers",),
    "groups": ("GroupLabels", "GroupLogps"),
    "judges.cache": ("VerdictCache",),
    "judges.helpfulness": ("load_helpfulness_judge",),
    "judges.preference": ("AnswerPair", "HelpfulnessJudge", "Preference"),
    "judges.registry": ("load_judge",),
    "judges.verdict": ("Exchange", "Judge", "Verdict"),
    "labeling.filling": ("LabeledSet",),
    "labeling.run": ("label",),
    "models": ("load_model", "load_tokenizer"),
    "objectives.bfpo": ("GlobalPreference",),
    "objectives.bfpo_loss": ("bfpo_loss",),
    "objectives.registry": ("Objective", "build_objective"),
    "preferences.loading": ("load_preferences",),
    "preferences.schema": ("PreferenceDataError",),
    "reports.page": ("build_report",),
    "reports.report": ("Report",),
    "safehelp.compare": ("Comparison", "compare"),
    "safehelp.evaluate": ("evaluate",),
    "safehelp.records": ("Evaluation",),
    "safehelp.suites": ("load_suite",),
    "statistics.intervals": ("Estimate",),
    "statistics.judge_error": ("ErrorRates",),
    "training.config": ("BFPOConfig",),
    "training.run": ("TrainedRun", "train"),
    "training.trainer": ("BFPOTrainer",),
    "training.training_data": ("Blend", "TrainingSource"),
}
_HOME = {name: f"bfpo.{module}" for module, names in _NAMES.items() for name in names}
__all__ = [
    "AnswerPair",
    "BFPOConfig",
    "BFPOTrainer",
    "BfpoError",
    "Blend",
    "Comparison",
    "Completion",
    "Decoding",
    "EndpointGenerator",
    "ErrorRates",
    "Estimate",
    "Evaluation",
    "Exchange",
    "Generator",
    "GlobalPreference",
    "GroupLabels",
    "GroupLogps",
    "HelpfulnessJudge",
    "Judge",
    "LabeledSet",
    "LocalGenerator",
    "ModelIdentity",
    "Objective",
    "Preference",
    "PreferenceDataError",
    "RecordedAnswers",
    "Report",
    "RunError",
    "SampleRequest",
    "TrainedRun",
    "TrainingSource",
    "Verdict",
    "VerdictCache",
    "as_messages",
    "bfpo_loss",
    "build_objective",
    "build_report",
    "compare",
    "evaluate",
    "label",
    "load_helpfulness_judge",
    "load_judge",
    "load_model",
    "load_preferences",
    "load_suite",
    "load_tokenizer",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bfpo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
