"""Judges' words on the answers of a set: verdicts, calibrated probabilities, and the judges' errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import numpy as np

from bfpo.errors import BfpoError, RunError
from bfpo.judges.checking import why_unparsed
from bfpo.judges.in_sample import fitted_part, share_fitted_to
from bfpo.judges.verdict import LABELS, Exchange, Judge, Verdict
from bfpo.labeling.calibrating import Calibrated, calibrated
from bfpo.labeling.people_sample import PeopleSample, of_each, sample_with_words
from bfpo.labeling.stored import stored_numbers, text_digest
from bfpo.statistics.calibration import auc
from bfpo.statistics.judge_error import ErrorRates, judge_error


@dataclass(frozen=True)
class JudgedAnswers:
    """The judges' words on [N] answers.

    Attributes:
        given: the verdicts of each judge.
        probabilities: [N] calibrated probability that the answer is safe, out of fold where people's label was used for
            it; None if it is the mean of the judges' own.
        calibrated: how the probabilities were calibrated.
        sample: people's labels from which errors are estimated; None if there are too few.
        errors: error of each judge on the sample, a fitted judge's with its out-of-fold verdicts; None without one.
        in_sample: share of the sample that each judge was fitted to.
        prompts: digest of the prompt of each answer in the sample.
    """

    given: Sequence[VerdictColumn]
    probabilities: np.ndarray | None = None
    calibrated: Calibrated = "not"
    sample: PeopleSample | None = None
    errors: tuple[ErrorRates | None, ...] = ()
    in_sample: tuple[float, ...] = ()
    prompts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))

    def word(self, at: int) -> dict[str, float] | None:
        """The judges' word on an answer, None if none could be read: "verdict", the share of them that calls it safe
        (controversial counts as unsafe), and "probability"."""
        own = [(column.p_safe[at], column.labels[at] == _SAFE) for column in self.given]
        parsed = [(p_safe, is_safe) for p_safe, is_safe in own if not np.isnan(p_safe)]
        if not parsed:
            return None
        mean = sum(p_safe for p_safe, _ in parsed) / len(parsed)
        probability = mean if self.probabilities is None else self.probabilities[at]
        share = sum(bool(is_safe) for _, is_safe in parsed) / len(parsed)
        return {"verdict": share, "probability": float(probability)}


@dataclass(frozen=True)
class VerdictColumn:
    """One judge's verdicts on [N] answers, without their texts.

    Attributes:
        p_safe: [N] probability that the answer is safe; NaN if unparsed.
        labels: [N] label as its place in `LABELS`.
        unparsed: number of answers without a verdict, by reason.
        first_output: what the judge wrote on the first answer.
    """

    p_safe: np.ndarray
    labels: np.ndarray
    unparsed: Counter[str]
    first_output: str

    @classmethod
    def of(cls, verdicts: Iterable[Verdict], folder: Path | None = None) -> VerdictColumn:
        """Collect verdicts, the probabilities in a temporary file in a folder, if one is given."""
        labels, unparsed, outputs = bytearray(), Counter[str](), list[str]()

        def probabilities() -> Iterator[float]:
            for verdict in verdicts:
                labels.append(_CODES[verdict.label])
                if verdict.label == "unparsed":
                    unparsed[why_unparsed(verdict, "safety")] += 1
                outputs.extend([verdict.raw] if not outputs else [])
                yield np.nan if verdict.p_safe is None else verdict.p_safe

        p_safe = stored_numbers(probabilities(), folder)
        return cls(p_safe, np.frombuffer(labels, dtype=np.uint8), unparsed, "".join(outputs))


_CODES = {name: code for code, name in enumerate(LABELS)}
_SAFE = _CODES["safe"]


def judge_answers(
    judges: Sequence[Judge],
    exchanges: Iterable[Exchange],
    given: Sequence[VerdictColumn],
    is_safe: np.ndarray,
    sources: np.ndarray,
    *,
    seed: int = 0,
    folder: Path | None = None,
) -> JudgedAnswers:
    """Combine verdicts, measure their errors on people's random sample, and calibrate their probabilities on it.

    Args:
        judges: [J] judges.
        exchanges: [N] answers, which are read several times.
        given: the [N] verdicts of each judge.
        is_safe: [N] people's labels; NaN for others.
        sources: [N] source of every label, as objects.
        seed: random seed for the folds of the calibration.
        folder: folder for a temporary file with the probabilities; None keeps them in memory.

    Raises:
        RunError: if a judge gave no verdict at all.
    """
    for judge, column in zip(judges, given, strict=True):
        if len(column.labels) and (column.labels == _CODES["unparsed"]).all():
            raise RunError(
                f"{judge.judge_id} gave no verdict on the safety of any of {len(column.labels):,} answers "
                f"({column.first_output[:60]!r}); name a judge of safety, see 'bfpo judge list'"
            )
    has_word = ~np.logical_and.reduce([np.isnan(column.p_safe) for column in given])
    sample = sample_with_words(sources, has_word, of_each(is_safe))
    if sample is None:
        return JudgedAnswers(given, errors=(None,) * len(judges), in_sample=(0.0,) * len(judges))
    # The sample's texts are read only for a judge that has been fitted to some.
    in_sample = tuple(
        share_fitted_to(judge, list(compress(exchanges, sample.inside))) if fitted_part(judge) else 0.0
        for judge in judges
    )
    prompts = np.array(
        [text_digest(exchange.prompt) for exchange in compress(exchanges, sample.inside)], dtype=np.uint64
    )
    places, clusters = np.flatnonzero(sample.inside), prompts.tolist()
    errors = tuple(
        judge_error(is_safe[places].tolist(), [LABELS[code] for code in column.labels[places]], clusters)
        for column in given
    )
    found = None
    # The probabilities of a judge that was fitted to most of the sample are calibrated already, if it is one of safety.
    fitted = fitted_part(judges[0])
    if len(judges) > 1 or in_sample[0] <= 0.5 or (fitted and fitted.target == "refusal"):
        p_safe = given[0].p_safe[:, None] if len(given) == 1 else np.stack([one.p_safe for one in given], axis=1)
        found = calibrated(p_safe, is_safe, sample.inside, clusters, seed=seed, folder=folder)
    how: Calibrated = "itself" if found is None else "sample"
    return JudgedAnswers(given, found, how, sample, errors, in_sample, prompts)


def check_informative(
    judges: Sequence[Judge], given: Sequence[VerdictColumn], judged: JudgedAnswers, is_safe: np.ndarray
) -> None:
    """Refuse judges whose words are no better than chance on the sample, unless their own probabilities surely rank.

    ``judged`` is the result of `judge_answers` for the other arguments.

    Raises:
        BfpoError: if one is.
    """
    for judge, column, error in zip(judges, given, judged.errors, strict=True):
        if judged.sample is None or error is None or error.sensitivity.value + error.specificity.value > 1:
            continue
        p_safe = column.p_safe[judged.sample.inside]
        known = ~np.isnan(p_safe)
        flags = is_safe[judged.sample.inside][known] >= 0.5
        ranking = auc(p_safe[known], flags, judged.prompts[known].tolist())
        if ranking is None or ranking.low <= 0.5:
            raise BfpoError(
                f"{judge.judge_id} is no better than chance on this set: sensitivity {error.sensitivity.value:.3f} and "
                f"specificity {error.specificity.value:.3f} add up to no more than 1; use another judge"
            )
