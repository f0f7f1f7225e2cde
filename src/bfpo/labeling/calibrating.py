"""Calibrated probabilities that answers are safe, from judges' probabilities and a sample that people labeled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.special import expit

from bfpo.statistics.calibration import fit_logistic, logit
from bfpo.statistics.intervals import cluster_codes

FOLDS = 5
# How probabilities were calibrated: on people's "sample", by the judge "itself", which was fitted to most of it, or
# "not", with too few labels: they are then the mean of the judges' own.
Calibrated = Literal["sample", "itself", "not"]


def calibrated(
    p_safe: np.ndarray, is_safe: np.ndarray, inside: np.ndarray, prompts: Sequence[str], *, seed: int = 0
) -> np.ndarray:
    """[N] calibrated probabilities by logistic regression on the judges' log-odds (Platt 1999); NaN without a verdict.

    For a judge that only says safe or unsafe this is the posterior P(safe | verdict) at the sample's base rate. With
    several judges, errors that they share don't count twice. Answers in the sample get the probability by a regression
    that saw neither their own label nor one of another answer to their prompt (cross-fitting).

    Args:
        p_safe: [N, J] each judge's probability; NaN if unparsed, which counts as no evidence beside other judges.
        is_safe: [N] people's labels; only read in the sample.
        inside: [N] whether the answer is in the sample.
        prompts: [N] prompt of each answer.
        seed: random seed for the folds.
    """
    judged = ~np.isnan(p_safe).all(axis=1)
    logits = np.nan_to_num(logit(p_safe))
    codes = cluster_codes(prompts, len(p_safe))
    fold = np.random.default_rng(seed).permutation(int(codes.max()) + 1)[codes] % FOLDS
    labeled = inside & judged
    found = _fitted(logits[labeled], is_safe[labeled], logits)
    for part in range(FOLDS):
        held_out = labeled & (fold == part)
        rest = labeled & (fold != part)
        found[held_out] = _fitted(logits[rest], is_safe[rest], logits[held_out])
    return np.where(judged, found, np.nan)


def _fitted(logits: np.ndarray, is_safe: np.ndarray, new: np.ndarray) -> np.ndarray:
    """[M] probabilities for new log-odds; the smoothed base rate if labels are of one kind or contradict the judge."""
    safe = float(is_safe.sum())
    unsafe = len(is_safe) - safe
    rate = np.full(len(new), (safe + 1) / (safe + unsafe + 2))
    scale = max(1.0, float(np.abs(logits).max(initial=0.0)))
    if min(safe, unsafe) < 1 or float(np.ptp(logits, axis=0).max()) == 0:
        return rate
    # Platt's smoothed targets keep the fit finite if the verdicts separate the labels.
    target = is_safe * (safe + 1) / (safe + 2) + (1 - is_safe) / (unsafe + 2)
    weights, offset = fit_logistic(logits / scale, target, intercept=True)
    if len(weights) == 1 and weights[0] <= 0:
        return rate
    return expit(new / scale @ weights + offset)
