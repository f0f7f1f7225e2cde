"""Calibrated probabilities that answers are safe, from judges' probabilities and a sample that people labeled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from bfpo.labeling.stored import NUMBERS_AT_ONCE, stored_numbers
from bfpo.statistics.calibration import fit_logistic, logit

FOLDS = 5
# How probabilities were calibrated: on people's "sample", by the judge "itself", which was fitted to most of it, or
# "not", with too few labels: they are then the mean of the judges' own.
Calibrated = Literal["sample", "itself", "not"]


def calibrated(
    p_safe: np.ndarray,
    is_safe: np.ndarray,
    inside: np.ndarray,
    prompts: Iterable[Any],
    *,
    seed: int = 0,
    folder: Path | None = None,
) -> np.ndarray:
    """[N] calibrated probabilities by logistic regression on the judges' log-odds (Platt 1999); NaN without a verdict.

    For a judge that only says safe or unsafe this is the posterior P(safe | verdict) at the sample's base rate. With
    several judges, errors that they share don't count twice. Answers in the sample get the probability by a regression
    that saw neither their own label nor one of another answer to their prompt (cross-fitting). The folds depend on
    nothing but the prompts and the seed.

    Args:
        p_safe: [N, J] each judge's probability; NaN if unparsed, which counts as no evidence beside other judges.
        is_safe: [N] people's labels; only read in the sample.
        inside: [N] whether the answer is in the sample.
        prompts: [S] prompt of each answer in the sample, or what stands for it, such as a digest.
        seed: random seed for the folds.
        folder: folder for a temporary file with the result; None keeps it in memory.
    """
    judged = np.any(~np.isnan(p_safe), axis=1)
    folds = np.array([_fold(prompt, seed) for prompt in prompts], dtype=int)
    places, fold = np.flatnonzero(inside & judged), folds[judged[inside]]
    logits, labels = _logits(p_safe[places]), is_safe[places]
    fitted = _fitted(logits, labels)
    blocks = (p_safe[start : start + NUMBERS_AT_ONCE] for start in range(0, len(p_safe), NUMBERS_AT_ONCE))
    found = stored_numbers((p for block in blocks for p in fitted(_logits(block)).tolist()), folder)
    for part in range(FOLDS):
        held_out = fold == part
        found[places[held_out]] = _fitted(logits[~held_out], labels[~held_out])(logits[held_out])
    found[~judged] = np.nan
    return found


def _fold(prompt: Any, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {prompt}".encode(), digest_size=8).digest()) % FOLDS


def _logits(p_safe: np.ndarray) -> np.ndarray:
    return np.nan_to_num(logit(p_safe))


def _fitted(logits: np.ndarray, is_safe: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """[M] probabilities of log-odds; the smoothed base rate if labels are of one kind or contradict the judge."""
    safe = float(is_safe.sum())
    unsafe = len(is_safe) - safe

    def rate(new: np.ndarray) -> np.ndarray:
        return np.full(len(new), (safe + 1) / (safe + unsafe + 2))

    scale = max(1.0, float(np.abs(logits).max(initial=0.0)))
    if min(safe, unsafe) < 1 or float(np.ptp(logits, axis=0).max()) == 0:
        return rate
    # Platt's smoothed targets keep the fit finite if the verdicts separate the labels.
    target = is_safe * (safe + 1) / (safe + 2) + (1 - is_safe) / (unsafe + 2)
    weights, offset = fit_logistic(logits / scale, target, intercept=True)
    if len(weights) == 1 and weights[0] <= 0:
        return rate
    return lambda new: expit(new / scale @ weights + offset)
