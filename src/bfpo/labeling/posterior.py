"""Posterior probability that an answer is safe, from verdicts, judges' errors and the source's base rate."""

from __future__ import annotations

from collections.abc import Sequence

from bfpo.judges.verdict import Verdict
from bfpo.statistics.judge_error import JudgeError, judge_error

# Smallest number of safe and of unsafe answers labeled by people for an estimate of a judge's error.
MINIMUM_OF_EACH = 10


def estimate_error(
    is_safe: Sequence[float], verdicts: Sequence[Verdict], prompts: Sequence[str] | None = None
) -> JudgeError | None:
    """A judge's error (`judge_error`), or None with verdicts on fewer than `MINIMUM_OF_EACH` safe or unsafe answers.

    Args:
        is_safe: [N] people's labels, flags or probabilities.
        verdicts: [N] verdicts on the same answers; unparsed ones are skipped.
        prompts: [N] prompt of each answer; by default all differ.
    """
    safe = [flag for flag, verdict in zip(is_safe, verdicts, strict=True) if verdict.label != "unparsed"]
    if min(sum(safe), len(safe) - sum(safe)) < MINIMUM_OF_EACH:
        return None
    return judge_error(is_safe, [verdict.label for verdict in verdicts], prompts)


def base_rate(is_safe: Sequence[float]) -> float:
    """P(safe) of a source from its labels by people, with Jeffreys' half an answer on each side."""
    return (sum(is_safe) + 0.5) / (len(is_safe) + 1)


def posterior_safe(verdicts: Sequence[Verdict], errors: Sequence[JudgeError], prior: float) -> float | None:
    """P(safe | verdicts, source), in [0, 1]; None if all verdicts are unparsed.

    By Bayes: odds(safe) = prior/(1 - prior) times P(label | safe)/P(label | unsafe) of every judge. Judges count as
    independent given the truth, which overstates the certainty if they share errors.

    Args:
        verdicts: verdict of every judge on one answer.
        errors: error of every judge.
        prior: share of safe answers in the source, see `base_rate`.
    """
    parsed = [pair for pair in zip(verdicts, errors, strict=True) if pair[0].label != "unparsed"]
    if not parsed:
        return None
    safe, unsafe = prior, 1 - prior
    for verdict, error in parsed:
        given_safe, given_unsafe = error.likelihoods(verdict.label)
        safe *= given_safe
        unsafe *= given_unsafe
    # A label that the judge never gives to either kind is no evidence.
    return safe / (safe + unsafe) if safe + unsafe > 0 else prior
