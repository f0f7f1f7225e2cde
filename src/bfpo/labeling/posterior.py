"""The probability that an answer is safe, by Bayes: from verdicts, the judges' errors and the source's base rate."""

from __future__ import annotations

from collections.abc import Sequence

from bfpo.judges.verdict import Verdict
from bfpo.statistics.judge_error import JudgeError, judge_error

# Number of answers of each kind with people's labels that a judge's error is estimated from; fewer say too little.
MINIMUM_OF_EACH = 10


def estimate_error(
    is_safe: Sequence[float], verdicts: Sequence[Verdict], prompts: Sequence[str] | None = None
) -> JudgeError | None:
    """A judge's error (`judge_error`) if it has a verdict on at least `MINIMUM_OF_EACH` safe and unsafe answers.

    Args:
        is_safe: [N] people's labels, flags or probabilities.
        verdicts: [N] the judge's of the same answers; unparsed ones are left out.
        prompts: [N] the prompt of each answer; by default all differ.
    """
    safe = [flag for flag, verdict in zip(is_safe, verdicts, strict=True) if verdict.label != "unparsed"]
    if min(sum(safe), len(safe) - sum(safe)) < MINIMUM_OF_EACH:
        return None
    return judge_error(is_safe, [verdict.label for verdict in verdicts], prompts)


def base_rate(is_safe: Sequence[float]) -> float:
    """P(safe) of a source, from the answers of it that people labelled, with Jeffreys' half an answer on each side."""
    return (sum(is_safe) + 0.5) / (len(is_safe) + 1)


def posterior_safe(verdicts: Sequence[Verdict], errors: Sequence[JudgeError], prior: float) -> float | None:
    """P(safe | what the judges said, source), in [0, 1] by construction; None if no judge was understood.

    By Bayes: odds(safe) = prior/(1 - prior) times P(word | safe)/P(word | unsafe) of every judge. Several judges
    count as independent given the truth, which overstates how sure they are where they err together.

    Args:
        verdicts: of one answer, from every judge.
        errors: of the same judges.
        prior: the source's share of safe answers, see `base_rate`.
    """
    safe, unsafe, heard = prior, 1 - prior, False
    for verdict, error in zip(verdicts, errors, strict=True):
        if verdict.label == "unparsed":
            continue
        heard = True
        given_safe, given_unsafe = error.likelihoods(verdict.label)
        safe *= given_safe
        unsafe *= given_unsafe
    if not heard:
        return None
    # A word that the judge never uses for either kind says nothing.
    return safe / (safe + unsafe) if safe + unsafe > 0 else prior
