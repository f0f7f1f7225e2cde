"""Keep a fitted scaling beside the judge that it is for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bfpo.errors import BfpoError
from bfpo.files import write_text
from bfpo.judges.labels import LabelledAnswer
from bfpo.judges.verdict import Verdict
from bfpo.statistics.calibration import Scaling, calibration_error, fit_scaling, logit


def scaling_of(labelled: Sequence[LabelledAnswer], verdicts: Sequence[Verdict]) -> tuple[Scaling, dict[str, Any]]:
    """The scaling that brings ``p_safe`` in line with labels, and what it was fitted on.

    Raises:
        BfpoError: if the judge gives no more than words (all its probabilities are 0, 1/2 or 1), or labels or verdicts
            are of one kind.
    """
    known = [
        (verdict.p_safe, answer.is_safe)
        for answer, verdict in zip(labelled, verdicts, strict=True)
        if verdict.p_safe is not None and answer.is_safe is not None
    ]
    if not known or {p for p, _ in known} <= {0.0, 0.5, 1.0}:
        raise BfpoError("the judge gives words and no probabilities: there is nothing to scale")
    logits, labels = logit([p for p, _ in known]), [bool(label) for _, label in known]
    scaling = fit_scaling(logits, labels)
    before, after = np.array([p for p, _ in known]), scaling.apply(logits)
    return scaling, {"answers": len(known), "ece_before": _ece(before, labels), "ece_after": _ece(after, labels)}


def _ece(probabilities: np.ndarray, labels: list[bool]) -> float:
    return round(calibration_error(probabilities, np.array(labels)).value, 6)


def save_scaled_judge(
    path: Path, spec: str, labels: str, labelled: Sequence[LabelledAnswer], verdicts: Sequence[Verdict]
) -> None:
    """Write a YAML file that is the judge with its scaling (`configured.load_configured` reads it)."""
    scaling, fitted_on = scaling_of(labelled, verdicts)
    described = {
        "judge": spec,
        "scaling": {"slope": scaling.slope, "offset": scaling.offset},
        "fitted_on": {
            "labels": Path(labels).name,
            "sha256": hashlib.sha256(Path(labels).read_bytes()).hexdigest(),
            "judge_id": verdicts[0].judge_id,
            **fitted_on,
        },
    }
    write_text(path, yaml.safe_dump(described, sort_keys=False))
