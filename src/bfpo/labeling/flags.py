"""The flags to train on from judged ones: verdicts, unbiased flags, probabilities or doubly robust flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import chi2_contingency

from bfpo.errors import BfpoError
from bfpo.labeling.people_sample import (
    ENOUGH_OF_EACH,
    MINIMUM_OF_EACH,
    Origin,
    PeopleSample,
    of_each,
    sample_with_words,
)
from bfpo.preferences.label_columns import HUMAN, JUDGE
from bfpo.statistics.flag_channel import FlagChannel, doubly_robust, flag_channel
from bfpo.statistics.intervals import Estimate, cluster_codes

Flags = Literal["verdict", "unbiased", "probability", "doubly_robust"]
# Lower end of corr(q, s)^2 from which unbiased flags are the default: below it, the sample hardly knows the factor by
# which they stretch the labels (docs/results/noisy-flags.md).
ENOUGH_INFORMATION = 0.02
# Unsafe answers of a category from which on it takes part in the test of equal errors.
_ENOUGH_IN_CATEGORY = 5


@dataclass(frozen=True)
class LabeledAnswers:
    """The labels of a source's [N] answers, flat.

    Attributes:
        flags: the flags in the file, people's or verdicts; NaN if unknown.
        sources: source of each flag, a name of `bfpo.preferences.label_columns`.
        verdicts: the judges' verdicts; NaN where there is none.
        probabilities: their calibrated probabilities of safe; NaN where there is none.
        prompts: prompt of each answer.
        categories: harm category of each answer's row, None if it has none or several; empty without categories.
    """

    flags: np.ndarray
    sources: Sequence[str]
    verdicts: np.ndarray
    probabilities: np.ndarray
    prompts: Sequence[str]
    categories: Sequence[str | None] = ()


@dataclass(frozen=True)
class FlagReport:
    """What a source's flags amount to.

    Attributes:
        flags: what was made of judged flags.
        reason: why, if the recipe doesn't say what to make of them.
        people: number of people's flags that are used as they are.
        judged: number of flags from judges.
        unused: number of people's flags that are not used: with "doubly_robust", those outside the random sample.
        outside: number of flags outside [0, 1].
        sample: origin of the sample that shows the errors, see `PeopleSample`; None without one.
        safe: number of safe answers in it.
        unsafe: number of unsafe answers in it.
        channel: channel of the source's flags as they are used, people's and judged ones together; None without a
            sample.
        n_eff: number of true flags that carry as much: the number of flags times their squared correlation with the
            true ones, with its 95 % interval.
        category_p: p-value of the judges' finding unsafe answers of all categories equally often; None if people's
            sample can't tell.
        judges: ids of the judges, as far as the file names them.
    """

    flags: Flags
    reason: str
    people: int
    judged: int
    unused: int
    outside: int
    sample: Origin | None
    safe: float
    unsafe: float
    channel: FlagChannel | None
    n_eff: Estimate | None
    category_p: float | None = None
    judges: tuple[str, ...] = ()


def resolve_flags(
    answers: LabeledAnswers, wanted: Flags | None, *, is_affine: bool, is_read: bool = True
) -> tuple[np.ndarray, FlagReport]:
    """The flags to train on.

    Args:
        answers: the source's answers, of which a judge labeled at least one.
        wanted: what to make of judged flags. None: "unbiased" where the label is affine in the flags, people labeled
            the queue's random part with at least 50 answers of each kind, in which the lower end of corr(q, s)^2 is
            at least .02, and the judge is better than chance on the answers that people haven't labeled; otherwise
            "verdict".
        is_affine: whether the training label is affine in the flags. What isn't gets no flags outside [0, 1].
        is_read: whether training reads the flags; if it doesn't, it may have those of a judge at chance.

    Returns:
        [N] flags, NaN if unknown, and the report.

    Raises:
        BfpoError: if the wanted flags need a sample that there isn't, would leave [0, 1] where they must not, or come
            from a judge no better than chance.
    """
    labels = _Labels.of(answers)
    rest = labels.rest_channel()
    flags, reason = _chosen(wanted, rest, labels, is_affine)
    judged = labels.q
    if flags == "verdict":
        judged = answers.verdicts
    elif flags == "unbiased" and rest:
        judged = rest.unbiased(labels.q)
    # What has no word of a judge keeps its flag, such as a probability that the recipe fills in.
    judged = np.where(np.isnan(judged), answers.flags, judged)
    made = np.where(labels.is_human, answers.flags, judged)
    unused = np.zeros(len(made), dtype=bool)
    if flags == "doubly_robust" and labels.sample:
        part, inside = labels.sample.population, labels.sample.inside
        made[part] = doubly_robust(labels.q[part], labels.people[part], inside[part])
        unused = part & labels.is_human & ~inside
    channel = labels.used_channel(made, judged, unused)
    if is_read and channel and channel.c <= 0:
        by_default = "" if wanted else " (by default)"
        raise BfpoError(
            f"'flags: {flags}'{by_default} would train on flags no better than chance: on people's sample their mean "
            f"is {channel.a + channel.c:.3f} for safe and {channel.a:.3f} for unsafe answers; use another judge"
        )
    return made, _report(flags, reason, answers, labels, made, unused, channel)


@dataclass(frozen=True)
class _Labels:
    """People's labels and judges' words, and the sample in which both are known.

    Attributes:
        q: [N] the judges' probability, or their verdict without one; NaN without either.
        people: [N] people's labels; NaN without one.
        is_human: [N] whether people labeled the answer.
        sample: people's random sample.
        clusters: [N] number of each answer's prompt.
    """

    q: np.ndarray
    people: np.ndarray
    is_human: np.ndarray
    sample: PeopleSample | None
    clusters: np.ndarray

    @classmethod
    def of(cls, answers: LabeledAnswers) -> _Labels:
        sources = np.asarray(answers.sources)
        is_human = np.isin(sources, HUMAN)
        q = np.where(np.isnan(answers.probabilities), answers.verdicts, answers.probabilities)
        people = np.where(is_human, answers.flags, np.nan)
        sample = sample_with_words(answers.sources, ~np.isnan(q), of_each(people))
        return cls(q, people, is_human, sample, cluster_codes(answers.prompts, len(q)))

    def sample_channel(self) -> FlagChannel | None:
        """The channel of q in people's random sample."""
        if self.sample is None:
            return None
        inside = np.flatnonzero(self.sample.inside)
        return flag_channel(self.q[inside], self.people[inside], self.clusters[inside].tolist())

    def rest_channel(self) -> FlagChannel | None:
        """The channel of q on the answers that people haven't labeled."""
        if self.sample is None:
            return None
        weights = self.sample.weights(self.is_human)
        used = np.flatnonzero(weights)
        return flag_channel(self.q[used], self.people[used], self.clusters[used].tolist(), weights[used])

    def used_channel(self, made: np.ndarray, judged: np.ndarray, unused: np.ndarray) -> FlagChannel | None:
        """The channel of a source's flags, people's and judged ones together.

        Answers that people labeled count once, with the flag that is used for them. The sample counts for all others,
        with the flag that its answers would have if people hadn't labeled them.
        """
        if self.sample is None:
            return None
        weights = self.sample.weights(self.is_human & ~unused)
        certain, rest = np.flatnonzero(self.is_human & ~unused), np.flatnonzero(weights)
        both = np.concatenate([certain, rest])
        return flag_channel(
            np.concatenate([made[certain], judged[rest]]),
            self.people[both],
            self.clusters[both].tolist(),
            np.concatenate([np.ones(len(certain)), weights[rest]]),
        )


def _chosen(wanted: Flags | None, rest: FlagChannel | None, labels: _Labels, is_affine: bool) -> tuple[Flags, str]:
    """The kind of flags, and the reason for it if the recipe doesn't say."""
    if wanted in ("unbiased", "doubly_robust"):
        _check_possible(wanted, labels, rest, is_affine)
    size = of_each(labels.people)(labels.sample.inside) if labels.sample else 0.0
    if wanted:
        return wanted, ""
    if not is_affine:
        return "verdict", "the label is not affine in the flags"
    if size < ENOUGH_OF_EACH:
        return "verdict", f"people labeled no random sample with {ENOUGH_OF_EACH} answers of each kind"
    if labels.sample and labels.sample.origin == "labels of the set":
        return "verdict", "whether the labels that came with the set are a random sample isn't known"
    if rest is None:
        return (
            "verdict",
            "the random sample is too small to tell the judge's errors on the answers that people haven't labeled",
        )
    judge = labels.sample_channel()
    if judge is None or judge.information.low < ENOUGH_INFORMATION:
        return "verdict", f"the lower end of corr(q, s)^2 is below {ENOUGH_INFORMATION}"
    if rest.information.low == 0:
        return "verdict", "the judge may be no better than chance on the answers that people haven't labeled"
    return "unbiased", f"people labeled a random sample with {ENOUGH_OF_EACH} answers of each kind"


def _check_possible(wanted: Flags, labels: _Labels, rest: FlagChannel | None, is_affine: bool) -> None:
    if not is_affine:
        raise BfpoError(
            f"'flags: {wanted}' makes flags outside [0, 1], and this label is not affine in the flags: write 'flags: "
            "verdict', or use loss_type bfpo with 'prefer: helpful' and 'unsafe_pairs: keep'"
        )
    if labels.sample is None:
        raise BfpoError(
            f"'flags: {wanted}' needs judged answers of which people labeled a random sample, at least "
            f"{MINIMUM_OF_EACH} safe and {MINIMUM_OF_EACH} unsafe ones: answer the random part of the queue of 'bfpo "
            "label --random-share', or write 'flags: verdict'"
        )
    if wanted == "unbiased" and rest is None:
        raise BfpoError(
            "'flags: unbiased' needs the judge's errors on the answers that people haven't labeled, and the random "
            "sample is too small to tell them: label more answers at random, or write 'flags: verdict'"
        )
    if wanted == "unbiased" and rest and rest.information.low == 0:
        raise BfpoError(
            f"'flags: unbiased' would divide by an effect that may be 0 (c = {rest.c:.3f}): label more answers at "
            "random, use another judge, or write 'flags: verdict'"
        )


def _report(
    flags: Flags,
    reason: str,
    answers: LabeledAnswers,
    labels: _Labels,
    made: np.ndarray,
    unused: np.ndarray,
    channel: FlagChannel | None,
) -> FlagReport:
    n, worth = int((~np.isnan(made)).sum()), channel.information if channel else None
    inside = labels.people[labels.sample.inside] if labels.sample else np.empty(0)
    return FlagReport(
        flags=flags,
        reason=reason,
        people=int((labels.is_human & ~unused).sum()),
        judged=list(answers.sources).count(JUDGE),
        unused=int(unused.sum()),
        outside=int(((made < 0) | (made > 1)).sum()),
        sample=labels.sample.origin if labels.sample else None,
        safe=float(inside.sum()),
        unsafe=float(len(inside) - inside.sum()),
        channel=channel,
        n_eff=worth and Estimate(worth.value * n, worth.low * n, worth.high * n, n),
        category_p=_category_p(answers, labels),
    )


def _category_p(answers: LabeledAnswers, labels: _Labels) -> float | None:
    """P-value, by chi-square, of equal shares of unsafe answers found in all categories with five or more of them.

    Only the first unsafe answer to a prompt counts, because answers to one prompt err together.
    """
    if not answers.categories or labels.sample is None:
        return None
    found: dict[str, list[bool]] = {}
    unsafe = np.flatnonzero(labels.sample.inside & (labels.people < 0.5) & ~np.isnan(answers.verdicts))
    _, first = np.unique(labels.clusters[unsafe], return_index=True)
    for at in unsafe[first].tolist():
        if (category := answers.categories[at]) is not None:
            found.setdefault(category, []).append(bool(answers.verdicts[at] < 0.5))
    table = np.array([[sum(own), len(own) - sum(own)] for own in found.values() if len(own) >= _ENOUGH_IN_CATEGORY])
    if len(table) < 2 or not table.sum(0).all():
        return None
    test: Any = chi2_contingency(table, correction=False)
    return float(test.pvalue)
