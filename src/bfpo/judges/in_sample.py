"""Recognition of labels that a judge was fitted to, on which it would look better than it is."""

from __future__ import annotations

from collections.abc import Sequence

from bfpo.judges.configured import ScaledJudge
from bfpo.judges.fitted import FittedJudge
from bfpo.judges.scaling import labels_sha256
from bfpo.judges.verdict import Exchange, Judge, innermost


def fitted_part(judge: Judge) -> FittedJudge | None:
    """The fitted judge itself, or the one under wrappers such as a scaling or ``compliance``."""
    inner = innermost(judge)
    return inner if isinstance(inner, FittedJudge) else None


def share_fitted_to(judge: Judge, exchanges: Sequence[Exchange]) -> float:
    """Share of the answers that a judge was fitted to; its verdicts on them are out of fold."""
    fitted = fitted_part(judge)
    return float(fitted.was_fitted_to(exchanges).mean()) if fitted and exchanges else 0.0


def warnings_of(judge: Judge, exchanges: Sequence[Exchange], labels: str = "") -> list[str]:
    """Warnings about a check of a judge on labeled answers that it, or its scaling, was fitted to.

    ``labels`` is the file or Hub data set of the labels.
    """
    warnings = []
    fitted = fitted_part(judge)
    if fitted is not None and exchanges:
        own = fitted.was_fitted_to(exchanges)
        same_prompt = fitted.knows_prompt(exchanges) & ~own
        if own.any():
            warnings.append(
                f"{judge.judge_id} was fitted to {own.sum():,} of these {len(own):,} answers; they count with its "
                "out-of-fold verdicts, by judges fitted to other prompts"
            )
        if same_prompt.any():
            warnings.append(
                f"{judge.judge_id} was fitted to other answers to the prompts of {same_prompt.sum():,} of these "
                f"{len(own):,} answers, so its figures may be too good"
            )
    if isinstance(judge, ScaledJudge) and judge.labels_sha256 and judge.labels_sha256 == labels_sha256(labels):
        warnings.append("the judge's scaling was fitted to these labels, so its ECE is too good; check it on others")
    return warnings
