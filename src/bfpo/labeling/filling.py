"""Filling in of missing labels by judges, with counts of the sources of all labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from typing import Any, Literal

import numpy as np

from bfpo.errors import BfpoError
from bfpo.judges.cache import VerdictCache
from bfpo.judges.exchanges import exchange_of
from bfpo.judges.in_sample import share_fitted_to
from bfpo.judges.preference import AnswerPair, HelpfulnessJudge
from bfpo.judges.streaming import verdicts
from bfpo.judges.verdict import Exchange, Judge, Verdict
from bfpo.labeling.posterior import base_rate, estimate_error, posterior_safe
from bfpo.preferences.checking import flags_of
from bfpo.preferences.label_sources import JUDGE, PEOPLE, UNKNOWN, UNPARSED, flags_by_judge, order_by_judge
from bfpo.preferences.ordering import swapped
from bfpo.preferences.reading import Row
from bfpo.statistics.calibration import auc
from bfpo.statistics.judge_error import JudgeError

Flags = Literal["posterior", "probability", "verdict"]


@dataclass(frozen=True)
class LabelingReport:
    """Sources of the labels, and the judges' errors.

    Attributes:
        judges: ids of the safety judges.
        order_judge: id of the helpfulness judge, if any.
        flags: meaning of filled flags: "posterior" (see `posterior_safe`), "probability" (mean p_safe of the judges)
            or "verdict" (share of judges with the verdict safe).
        prior: share of safe answers by people's labels; None without labels.
        errors: error of every judge; None if people labeled too few answers of either kind.
        safety: number of answers by source of the flag: "people", "judge", "unparsed" (flag still unknown).
        order: number of pairs by source of the order: "people", "judge", "unknown".
        turned: number of pairs whose answers were swapped because the judge prefers the second one.
        rejudged: number of flags and orders from an earlier judge that were judged again.
        in_sample: share of the human-labeled answers that each judge was fitted to; its verdicts on them are those of
            judges that were not.
    """

    judges: tuple[str, ...]
    order_judge: str | None
    flags: Flags
    prior: float | None
    errors: tuple[JudgeError | None, ...]
    safety: dict[str, int]
    order: dict[str, int]
    turned: int
    rejudged: int = 0
    in_sample: tuple[float, ...] = ()


@dataclass(frozen=True)
class LabeledSet:
    """Labeled rows.

    Attributes:
        rows: canonical rows with ``labelled_by``, the source of every answer's flag and, in pairs, of the order.
        report: counts and errors.
    """

    rows: list[Row]
    report: LabelingReport


def label_preferences(
    rows: Sequence[Row],
    judges: Sequence[Judge],
    *,
    order_judge: HelpfulnessJudge | None = None,
    flags: Flags | None = None,
    errors: Sequence[JudgeError | None] | None = None,
    cache: VerdictCache | None = None,
) -> LabeledSet:
    """Keep people's labels and fill in the missing ones with judges.

    Args:
        rows: canonical rows, in which flags and the order (``chosen_is_better``) may be None. Their ``labelled_by``, if
            any, tells people's labels from an earlier judge's, which count as missing where a judge is given.
        judges: safety judges; they also judge the answers that people labeled, to estimate their errors.
        order_judge: helpfulness judge for pairs without an order.
        flags: meaning of filled flags. By default the judges' own probability if some judge's error is unknown, or all
            were fitted to most of people's labels and so calibrated on them; otherwise the posterior.
        errors: known errors of the judges; by default estimated.
        cache: cache of verdicts, from which an interrupted run resumes.

    Raises:
        BfpoError: if an answer without a flag has no judge, a judge is no better than chance, or the posterior can't
            be computed.
    """
    known = [flag for row in rows for flag in flags_of(row)]
    by_judge = [earlier for row in rows for earlier in flags_by_judge(row)]
    if None in known and not judges:
        raise BfpoError("answers without a safety flag need a judge: name one with --judge")
    exchanges = [exchange_of(row, number) for row in rows for number in range(len(flags_of(row)))]
    judged = [list(verdicts(judge, exchanges, cache)) for judge in judges]
    given = [None if earlier else flag for flag, earlier in zip(known, by_judge, strict=True)]
    measured = _measured(judges, exchanges, given, judged, errors)
    flags = flags or measured.default_flags
    if None in given:
        measured.check_informative(flags)
    answers = _answers(given, known, judged, flags, measured)
    rest = iter(answers)
    labeled = [_with_flags(row, list(islice(rest, len(flags_of(row))))) for row in rows]
    ordered, order, swaps = _ordered(labeled, order_judge)
    orders = sum(order_by_judge(row) for row in rows) if order_judge else 0
    return LabeledSet(
        ordered,
        LabelingReport(
            judges=tuple(judge.judge_id for judge in judges),
            order_judge=order_judge.judge_id if order_judge else None,
            flags=flags,
            prior=measured.prior,
            errors=measured.errors,
            safety=_counts((name for _, name in answers), (PEOPLE, JUDGE, UNPARSED)),
            order=order,
            turned=swaps,
            rejudged=orders + (sum(by_judge) if judges else 0),
            in_sample=measured.in_sample,
        ),
    )


@dataclass(frozen=True)
class _Measured:
    """The judges on the answers that people labeled.

    Attributes:
        judges: ids of the judges.
        is_safe: [N] people's labels.
        given: the [N] verdicts of each judge.
        errors: error of each judge, if known.
        prior: share of safe answers; None without labels.
        in_sample: share of these answers that each judge was fitted to.
    """

    judges: tuple[str, ...]
    is_safe: list[float]
    given: list[list[Verdict]]
    errors: tuple[JudgeError | None, ...]
    prior: float | None
    in_sample: tuple[float, ...]

    @property
    def default_flags(self) -> Flags:
        """See `label_preferences`."""
        # The probabilities of a judge are calibrated, out of fold, on the answers that it was fitted to.
        calibrated = bool(self.in_sample) and min(self.in_sample) > 0.5
        return "probability" if self.prior is None or None in self.errors or calibrated else "posterior"

    def check_informative(self, flags: Flags) -> None:
        """Refuse judges whose words, or probabilities if these are the flags, are no better than chance.

        Raises:
            BfpoError: if one isn't.
        """
        for name, error, given in zip(self.judges, self.errors, self.given, strict=True):
            if error is None or error.sensitivity.value + error.specificity.value > 1:
                continue
            if flags == "probability" and self._ranks(given):
                continue
            raise BfpoError(
                f"{name} is no better than chance on this set: sensitivity {error.sensitivity.value:.3f} and "
                f"specificity {error.specificity.value:.3f} add up to no more than 1; use another judge"
            )

    def _ranks(self, given: Sequence[Verdict]) -> bool:
        """Whether the probabilities rank safe answers above unsafe ones more often than not."""
        rated = [(v.p_safe, safe) for v, safe in zip(given, self.is_safe, strict=True) if v.p_safe is not None]
        scores, labels = np.array(rated).reshape(-1, 2).T
        ranking = auc(scores, labels >= 0.5)
        return ranking is not None and ranking.value > 0.5


def _measured(
    judges: Sequence[Judge],
    exchanges: Sequence[Exchange],
    is_safe: Sequence[float | None],
    judged: Sequence[Sequence[Verdict]],
    errors: Sequence[JudgeError | None] | None,
) -> _Measured:
    places = [at for at, flag in enumerate(is_safe) if flag is not None]
    people, own = [float(is_safe[at] or 0) for at in places], [exchanges[at] for at in places]
    given = [[column[at] for at in places] for column in judged]
    if errors is None:
        prompts = [exchange.prompt for exchange in own]
        errors = [estimate_error(people, column, prompts) if places else None for column in given]
    return _Measured(
        judges=tuple(judge.judge_id for judge in judges),
        is_safe=people,
        given=given,
        errors=tuple(errors),
        prior=base_rate(people) if places else None,
        in_sample=tuple(share_fitted_to(judge, own) for judge in judges),
    )


def _answers(
    given: Sequence[float | None],
    known: Sequence[float | None],
    judged: Sequence[Sequence[Verdict]],
    flags: Flags,
    measured: _Measured,
) -> list[tuple[float | None, str]]:
    """The flag of every answer and its source: people, else a judge; without one, an earlier judge's labels stay."""
    answers: list[tuple[float | None, str]] = []
    for at, flag in enumerate(given):
        found = known[at]
        if judged and flag is None:
            found = _flag([column[at] for column in judged], flags, measured.errors, measured.prior)
        answers.append((found, PEOPLE if flag is not None else UNPARSED if found is None else JUDGE))
    return answers


def _flag(
    given: Sequence[Verdict], flags: Flags, errors: Sequence[JudgeError | None], prior: float | None
) -> float | None:
    if flags == "posterior":
        found = [error for error in errors if error is not None]
        if prior is None or len(found) < len(errors):
            raise BfpoError(
                "the posterior needs people's labels of at least 10 safe and 10 unsafe answers in this set: "
                "label some, or use the judges' own probabilities with --flags probability"
            )
        return posterior_safe(given, found, prior)
    parsed = [verdict for verdict in given if verdict.p_safe is not None]
    if not parsed:
        return None
    if flags == "verdict":
        return sum(verdict.label == "safe" for verdict in parsed) / len(parsed)
    return sum(verdict.p_safe or 0.0 for verdict in parsed) / len(parsed)


def _with_flags(row: Row, answers: list[tuple[float | None, str]]) -> Row:
    """The row with the flag of every answer, and its source."""
    flags, names = map(list, zip(*answers, strict=True))
    if "chosen" not in row:
        return row | {"is_safe": flags, "labelled_by": {"answers": names}}
    by = row.get("labelled_by") or {}
    return row | {
        "chosen_is_safe": flags[0],
        "rejected_is_safe": flags[1],
        "labelled_by": {**by, "chosen": names[0], "rejected": names[1]},
    }


def _ordered(rows: list[Row], judge: HelpfulnessJudge | None) -> tuple[list[Row], dict[str, int], int]:
    """The rows with missing orders filled in, counts by source of the order, and the number of swapped pairs."""
    is_open = [
        "chosen" in row and (row["chosen_is_better"] is None or (judge is not None and order_by_judge(row)))
        for row in rows
    ]
    found: list[float | None] = [None] * sum(is_open)
    if judge and found:
        open_pairs = compress(rows, is_open)
        exchanges = [(exchange_of(row, 0), exchange_of(row, 1)) for row in open_pairs]
        answer_pairs = [AnswerPair(first.prompt, first.answer, second.answer) for first, second in exchanges]
        found = [preference.p_first for preference in judge.compare(answer_pairs)]
    answers = iter(found)
    ordered: list[Row] = []
    by: list[str] = []
    swaps = 0
    for row, was_open in zip(rows, is_open, strict=True):
        if "chosen" not in row:
            ordered.append(row)
            continue
        name = JUDGE if order_by_judge(row) else PEOPLE
        if was_open:
            better = next(answers)
            name = UNKNOWN if better is None else JUDGE
            if better is not None and better < 0.5:
                row = swapped(row, better)
                swaps += 1
            else:
                row = dict[str, Any](row, chosen_is_better=better)
        by.append(name)
        ordered.append(row | {"labelled_by": row["labelled_by"] | {"order": name}})
    return ordered, _counts(by, (PEOPLE, JUDGE, UNKNOWN)), swaps


def _counts(names: Iterable[str], known: Sequence[str]) -> dict[str, int]:
    found = Counter(names)
    return {name: found[name] for name in known}
