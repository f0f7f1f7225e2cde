"""Judges' words on the answers of a set: verdicts, calibrated probabilities, and the judges' errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bfpo.errors import BfpoError, RunError
from bfpo.judges.in_sample import share_fitted_to
from bfpo.judges.verdict import Exchange, Judge, Verdict
from bfpo.labeling.calibrating import Calibrated, calibrated
from bfpo.labeling.people_sample import PeopleSample, of_each, sample_with_words
from bfpo.statistics.calibration import auc
from bfpo.statistics.judge_error import JudgeError, judge_error


@dataclass(frozen=True)
class JudgedAnswers:
    """The judges' words on [N] answers.

    Attributes:
        verdicts: [N] share of the judges whose verdict is safe (controversial counts as unsafe); NaN if none could be
            read.
        probabilities: [N] probability that the answer is safe, out of fold where people's label was used for it; NaN
            where ``verdicts`` is.
        calibrated: how the probabilities were calibrated.
        sample: people's labels from which errors are estimated; None if there are too few.
        errors: error of each judge on the sample, a fitted judge's with its out-of-fold verdicts; None without one.
        in_sample: share of the sample that each judge was fitted to.
    """

    verdicts: np.ndarray
    probabilities: np.ndarray
    calibrated: Calibrated
    sample: PeopleSample | None
    errors: tuple[JudgeError | None, ...]
    in_sample: tuple[float, ...]


def judge_answers(
    judges: Sequence[Judge],
    exchanges: Sequence[Exchange],
    given: Sequence[Sequence[Verdict]],
    is_safe: np.ndarray,
    sources: Sequence[str],
    *,
    seed: int = 0,
) -> JudgedAnswers:
    """Combine verdicts, measure their errors on people's random sample, and calibrate their probabilities on it.

    Args:
        judges: [J] judges.
        exchanges: [N] answers.
        given: the [N] verdicts of each judge.
        is_safe: [N] people's labels; NaN for others.
        sources: [N] source of every label.
        seed: random seed for the folds of the calibration.

    Raises:
        RunError: if a judge gave no verdict at all.
    """
    for judge, column in zip(judges, given, strict=True):
        if column and all(verdict.label == "unparsed" for verdict in column):
            raise RunError(
                f"{judge.judge_id} gave no verdict on the safety of any of {len(column):,} answers "
                f"({column[0].raw[:60]!r}); name a judge of safety, see 'bfpo judge list'"
            )
    prompts = [exchange.prompt for exchange in exchanges]
    p_safe = np.array([[np.nan if v.p_safe is None else v.p_safe for v in column] for column in given]).T
    says_safe = np.array([[v.label == "safe" for v in column] for column in given], dtype=float).T
    parsed = ~np.isnan(p_safe)
    sample = sample_with_words(sources, parsed.sum(axis=1) > 0, of_each(is_safe))
    with np.errstate(invalid="ignore"):
        verdicts = np.where(parsed, says_safe, 0.0).sum(axis=1) / parsed.sum(axis=1)
        probabilities = np.nansum(p_safe, axis=1) / parsed.sum(axis=1)
    places: list[int] = np.flatnonzero(sample.inside).tolist() if sample else []
    own = [exchanges[at] for at in places]
    in_sample = tuple(share_fitted_to(judge, own) for judge in judges)
    how: Calibrated = "not"
    if sample and len(judges) == 1 and in_sample[0] > 0.5:
        how = "itself"
    elif sample:
        how, probabilities = "sample", calibrated(p_safe, is_safe, sample.inside, prompts, seed=seed)
    errors = tuple(
        judge_error(is_safe[places].tolist(), [column[at].label for at in places], [prompts[at] for at in places])
        if sample
        else None
        for column in given
    )
    return JudgedAnswers(verdicts, probabilities, how, sample, errors, in_sample)


def check_informative(
    judges: Sequence[Judge],
    given: Sequence[Sequence[Verdict]],
    judged: JudgedAnswers,
    is_safe: np.ndarray,
    prompts: Sequence[str],
) -> None:
    """Refuse judges whose words are no better than chance on the sample, unless their own probabilities surely rank.

    Args:
        judges: [J] judges.
        given: the [N] verdicts of each judge.
        judged: result of `judge_answers`.
        is_safe: [N] people's labels; NaN for others.
        prompts: [N] prompt of each answer.

    Raises:
        BfpoError: if one is.
    """
    for judge, column, error in zip(judges, given, judged.errors, strict=True):
        if judged.sample is None or error is None or error.sensitivity.value + error.specificity.value > 1:
            continue
        p_safe = np.array([np.nan if verdict.p_safe is None else verdict.p_safe for verdict in column])
        known = np.flatnonzero(judged.sample.inside & ~np.isnan(p_safe))
        ranking = auc(p_safe[known], is_safe[known] >= 0.5, [prompts[at] for at in known.tolist()])
        if ranking is None or ranking.low <= 0.5:
            raise BfpoError(
                f"{judge.judge_id} is no better than chance on this set: sensitivity {error.sensitivity.value:.3f} and "
                f"specificity {error.specificity.value:.3f} add up to no more than 1; use another judge"
            )
