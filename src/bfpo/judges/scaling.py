"""Fitting and saving of a scaling for a judge's probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bfpo.config import read_yaml, validated
from bfpo.errors import BfpoError
from bfpo.files import check_replaceable, file_sha256, write_text
from bfpo.judges.configured import ScaledJudgeConfig
from bfpo.judges.labels import LabeledAnswer
from bfpo.judges.verdict import Verdict
from bfpo.statistics.calibration import Scaling, calibration_error, fit_scaling, logit


def scaling_of(labeled: Sequence[LabeledAnswer], verdicts: Sequence[Verdict]) -> tuple[Scaling, dict[str, Any]]:
    """Fit a scaling of ``p_safe`` to labels; also returns the number of answers and the calibration errors.

    Raises:
        BfpoError: if the judge gives only labels (all its probabilities are 0, 1/2 or 1), or all labels or verdicts
            are equal.
    """
    known = [
        (verdict.p_safe, answer.is_safe)
        for answer, verdict in zip(labeled, verdicts, strict=True)
        if verdict.p_safe is not None and answer.is_safe is not None
    ]
    if not known or {p for p, _ in known} <= {0.0, 0.5, 1.0}:
        raise BfpoError("the judge gives labels without probabilities, so there is nothing to scale")
    logits, labels = logit([p for p, _ in known]), [bool(label) for _, label in known]
    scaling = fit_scaling(logits, labels)
    before, after = np.array([p for p, _ in known]), scaling.apply(logits)
    return scaling, {"answers": len(known), "ece_before": _ece(before, labels), "ece_after": _ece(after, labels)}


def _ece(probabilities: np.ndarray, labels: list[bool]) -> float:
    return round(calibration_error(probabilities, np.array(labels)).value, 6)


def save_scaled_judge(
    path: Path, spec: str, labels: str, labeled: Sequence[LabeledAnswer], verdicts: Sequence[Verdict]
) -> None:
    """Write a YAML file of the judge with its scaling, for `configured.load_configured`.

    Raises:
        BfpoError: if the file exists and is not this judge with a scaling, or as `scaling_of` does.
    """
    check_replaceable(path, partial(_check_scaled, spec), f"{spec} with a scaling")
    scaling, fitted_on = scaling_of(labeled, verdicts)
    described = {
        "judge": spec,
        "scaling": {"slope": scaling.slope, "offset": scaling.offset},
        "fitted_on": {
            "labels": Path(labels).name,
            "sha256": labels_sha256(labels),
            "judge_id": verdicts[0].judge_id,
            **fitted_on,
        },
    }
    write_text(path, yaml.safe_dump(described, sort_keys=False))


def _check_scaled(spec: str, path: Path) -> None:
    if validated(ScaledJudgeConfig, read_yaml(path, "a scaled judge"), str(path)).judge != spec:
        raise BfpoError(f"{path}: it is of another judge")


def labels_sha256(name: str) -> str:
    """SHA-256 of a file of labels; "" if the name isn't one's (but a Hub data set's)."""
    return file_sha256(name) if Path(name).is_file() else ""
