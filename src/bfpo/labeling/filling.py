"""Filling in of missing labels by judges, with counts of the sources of all labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bfpo.errors import BfpoError
from bfpo.judges.cache import VerdictCache
from bfpo.judges.exchanges import Exchanges
from bfpo.judges.preference import HelpfulnessJudge
from bfpo.judges.streaming import verdicts
from bfpo.judges.verdict import Judge
from bfpo.labeling.calibrating import Calibrated
from bfpo.labeling.judging import JudgedAnswers, VerdictColumn, check_informative, judge_answers
from bfpo.labeling.order_filling import fill_orders
from bfpo.labeling.people_sample import Origin
from bfpo.labeling.stored import stored_numbers, stored_rows
from bfpo.preferences.answers import by_answer, flags_of, is_pair, with_flags
from bfpo.preferences.label_columns import HUMAN, JUDGE, UNKNOWN, UNPARSED, flag_sources, order_source
from bfpo.preferences.reading import Row
from bfpo.statistics.intervals import Estimate
from bfpo.statistics.judge_error import ErrorRates


@dataclass(frozen=True)
class LabelingReport:
    """Sources of the labels, and the judges' errors.

    Attributes:
        judges: ids of the safety judges.
        order_judge: id of the helpfulness judge, if any.
        safety: number of answers by source of the flag: "people" (labels of the set), "random" and "queue" (people's
            answers to the random part of the queue and to the rest), "judge", "unparsed" (flag still unknown).
        order: number of pairs by source of the order, with "unknown" in place of "unparsed".
        unparsed: number of answers without a verdict by judge and reason, of pairs by the helpfulness judge.
        sample: labels from which errors are estimated: the "random part" or the "labels of the set"; None if there are
            too few.
        errors: error of every judge on that sample; None without one.
        order_error: share of people's orders in such a sample that the helpfulness judge gets wrong (a tie counts 1/2).
        prior: share of safe answers in the sample; None without one.
        calibrated: how the probabilities were calibrated.
        in_sample: share of the sample that each judge was fitted to; its verdicts on them are those of judges that
            were not.
        turned: number of pairs whose answers were swapped because the judge prefers the second one.
        rejudged: number of flags and orders from an earlier judge that were judged again.
    """

    judges: tuple[str, ...]
    order_judge: str | None
    safety: dict[str, int]
    order: dict[str, int]
    unparsed: dict[str, dict[str, int]]
    sample: Origin | None
    errors: tuple[ErrorRates | None, ...]
    order_error: Estimate | None
    prior: float | None
    calibrated: Calibrated
    in_sample: tuple[float, ...]
    turned: int
    rejudged: int


@dataclass(frozen=True)
class LabeledSet:
    """Labeled rows.

    Attributes:
        rows: canonical rows with ``labelled_by`` and ``judged_as`` (see `bfpo.preferences.label_columns`).
        report: counts and errors.
        judgments: number of pairs that were drawn for overall judgments; None if none were asked for.
    """

    rows: Sequence[Row]
    report: LabelingReport
    judgments: int | None = None


def label_preferences(
    rows: Iterable[Row],
    judges: Sequence[Judge],
    *,
    order_judge: HelpfulnessJudge | None = None,
    cache: VerdictCache | None = None,
    seed: int = 0,
    folder: Path | None = None,
) -> LabeledSet:
    """Keep people's labels and fill in the missing ones with judges.

    A filled flag is the verdict: 1 (safe) or 0, with several judges the share of them. What training makes of it is the
    recipe's choice (`bfpo.labeling.flags`); ``judged_as`` holds what the recipe needs, also for answers that people
    labeled.

    Args:
        rows: canonical rows, in which flags and the order (``chosen_is_better``) may be None. Their ``labelled_by``, if
            any, tells people's labels from an earlier judge's, which count as missing where a judge is given.
        judges: safety judges; they also judge the answers that people labeled, to estimate their errors.
        order_judge: helpfulness judge for pairs without an order; if there are any, it also judges the others.
        cache: cache of verdicts and preferences, from which an interrupted run resumes.
        seed: random seed for the folds of the calibration.
        folder: folder for temporary files with the rows and the judges' numbers; None keeps them in memory.

    Raises:
        BfpoError: if an answer without a flag has no judge, or a judge is no better than chance.
    """
    rows = stored_rows(rows, folder)
    labels = _Labels.of(rows, folder)
    if labels.missing and not judges:
        raise BfpoError("answers without a safety flag need a judge: name one with --judge")
    exchanges, human = Exchanges(rows), labels.human
    given = [VerdictColumn.of(verdicts(judge, exchanges, cache), folder) for judge in judges]
    judged = (
        judge_answers(judges, exchanges, given, human, labels.sources, seed=seed, folder=folder) if judges else None
    )
    if judged and np.isnan(human).any():
        check_informative(judges, given, judged, human)
    ids, filled = tuple(judge.judge_id for judge in judges), Counter[str]()
    ordered = fill_orders(_filled(rows, judged, ids, filled), order_judge, cache, folder)
    sample = judged.sample if judged else None
    filled_again = int((labels.source_codes == _SOURCES.index(JUDGE)).sum())
    return LabeledSet(
        ordered.rows,
        LabelingReport(
            judges=ids,
            order_judge=order_judge.judge_id if order_judge else None,
            safety={name: filled[name] for name in (*HUMAN, JUDGE, UNPARSED)},
            order={name: ordered.sources[name] for name in (*HUMAN, JUDGE, UNKNOWN)},
            unparsed=_unparsed(ids, given, order_judge, ordered.unparsed),
            sample=sample.origin if sample else None,
            errors=judged.errors if judged else (),
            order_error=ordered.error,
            prior=_base_rate(human[sample.inside]) if sample else None,
            calibrated=judged.calibrated if judged else "not",
            in_sample=judged.in_sample if judged else (),
            turned=ordered.turned,
            rejudged=(filled_again if judges else 0) + (labels.judged_orders if order_judge else 0),
        ),
    )


def _unparsed(
    judges: Sequence[str], given: Sequence[VerdictColumn], order_judge: HelpfulnessJudge | None, pairs: int
) -> dict[str, dict[str, int]]:
    """Numbers of answers, and of ``pairs``, without a verdict, of the judges that left any."""
    counts: dict[str, Counter[str]] = {}
    # Judges that ask the same model different questions share an id.
    for name, column in zip(judges, given, strict=True):
        counts[name] = counts.get(name, Counter()) + column.unparsed
    if order_judge:
        counts[order_judge.judge_id] = Counter({"no preference": pairs})
    return {name: dict(+reasons) for name, reasons in counts.items() if +reasons}


@dataclass(frozen=True)
class _Labels:
    """Labels that [N] answers of rows have already.

    Attributes:
        human: [N] people's flags; NaN for others.
        source_codes: [N] source of each flag, as its place in `_SOURCES`.
        missing: number of answers without a flag, in rows that no run has labeled before.
        judged_orders: number of pairs whose order is a judge's.
    """

    human: np.ndarray
    source_codes: np.ndarray
    missing: int
    judged_orders: int

    @property
    def sources(self) -> np.ndarray:
        """[N] sources of the flags, as objects."""
        return np.array(_SOURCES, dtype=object)[self.source_codes]

    @classmethod
    def of(cls, rows: Iterable[Row], folder: Path | None) -> _Labels:
        codes, counts = bytearray(), Counter[str]()

        def human() -> Iterator[float]:
            for row in rows:
                for flag, name in zip(flags_of(row), flag_sources(row), strict=True):
                    codes.append(_SOURCES.index(name))
                    # What an earlier run's judge couldn't read stays unknown without another judge.
                    counts["missing"] += flag is None and row.get("labelled_by") is None
                    yield np.nan if flag is None or name not in HUMAN else flag
                counts["orders"] += is_pair(row) and order_source(row) == JUDGE

        flags = stored_numbers(human(), folder)
        return cls(flags, np.frombuffer(codes, dtype=np.uint8), counts["missing"], counts["orders"])


_SOURCES = (*HUMAN, JUDGE, UNPARSED, UNKNOWN)


def _filled(
    rows: Iterable[Row], judged: JudgedAnswers | None, ids: Sequence[str], filled: Counter[str]
) -> Iterator[Row]:
    """The rows with all flags that are known now; the sources of these are counted."""
    at = 0
    for row in rows:
        flags, names = flags_of(row), flag_sources(row)
        words = [judged and judged.word(place) for place in range(at, at + len(flags))]
        answers = [_answer(*each, judged) for each in zip(flags, names, words, strict=True)]
        filled.update(name for _, name, _ in answers)
        at += len(flags)
        yield _with_flags(row, answers, ids)


# The flag of an answer, its source, and the judges' word on it.
_Word = dict[str, float] | None
_Answer = tuple[float | None, str, _Word]


def _answer(flag: float | None, name: str, word: _Word, judged: JudgedAnswers | None) -> _Answer:
    """People's flag where there is one, else the judges' verdict; without judges, an earlier judge's labels stay."""
    if name in HUMAN or judged is None:
        return flag, name, word
    return (word["verdict"], JUDGE, word) if word else (None, UNPARSED, None)


def _with_flags(row: Row, answers: Sequence[_Answer], judges: Sequence[str]) -> Row:
    """The row with the flag of every answer, its source, and the word of the judges that were asked, if any were."""
    flags, names, words = map(list, zip(*answers, strict=True))
    by = by_answer(row, names) | ({"order": order_source(row)} if is_pair(row) else {})
    # The word on a pair's order stays.
    judged = (row.get("judged_as") or {}) | by_answer(row, words) | {"judges": list(judges)}
    noted = {"judged_as": judged} if judges else {}
    return with_flags(row, flags) | {"labelled_by": by} | noted


def _base_rate(is_safe: np.ndarray) -> float:
    """P(safe) of a source from people's labels, with Jeffreys' half an answer on each side."""
    return (float(is_safe.sum()) + 0.5) / (len(is_safe) + 1)
