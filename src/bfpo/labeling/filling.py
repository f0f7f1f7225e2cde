"""Filling in of missing labels by judges, with counts of the sources of all labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from bfpo.errors import BfpoError
from bfpo.judges.cache import VerdictCache
from bfpo.judges.exchanges import exchange_of
from bfpo.judges.preference import HelpfulnessJudge
from bfpo.judges.streaming import verdicts
from bfpo.judges.verdict import Judge
from bfpo.labeling.calibrating import Calibrated
from bfpo.labeling.judging import JudgedAnswers, check_informative, judge_answers
from bfpo.labeling.order_filling import fill_orders
from bfpo.labeling.people_sample import Origin
from bfpo.preferences.checking import flags_of
from bfpo.preferences.label_columns import HUMAN, JUDGE, UNKNOWN, UNPARSED, flag_sources, order_source
from bfpo.preferences.reading import Row
from bfpo.statistics.intervals import Estimate
from bfpo.statistics.judge_error import JudgeError


@dataclass(frozen=True)
class LabelingReport:
    """Sources of the labels, and the judges' errors.

    Attributes:
        judges: ids of the safety judges.
        order_judge: id of the helpfulness judge, if any.
        safety: number of answers by source of the flag: "people" (labels of the set), "random" and "queue" (people's
            answers to the random part of the queue and to the rest), "judge", "unparsed" (flag still unknown).
        order: number of pairs by source of the order, with "unknown" in place of "unparsed".
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
    sample: Origin | None
    errors: tuple[JudgeError | None, ...]
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

    rows: list[Row]
    report: LabelingReport
    judgments: int | None = None


def label_preferences(
    rows: Sequence[Row],
    judges: Sequence[Judge],
    *,
    order_judge: HelpfulnessJudge | None = None,
    cache: VerdictCache | None = None,
    seed: int = 0,
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
        cache: cache of verdicts, from which an interrupted run resumes.
        seed: random seed for the folds of the calibration.

    Raises:
        BfpoError: if an answer without a flag has no judge, or a judge is no better than chance.
    """
    known = [flag for row in rows for flag in flags_of(row)]
    sources = [name for row in rows for name in flag_sources(row)]
    if None in known and not judges:
        raise BfpoError("answers without a safety flag need a judge: name one with --judge")
    exchanges = [exchange_of(row, number) for row in rows for number in range(len(flags_of(row)))]
    given = [list(verdicts(judge, exchanges, cache)) for judge in judges]
    human = np.array(
        [flag if name in HUMAN else np.nan for flag, name in zip(known, sources, strict=True)], dtype=float
    )
    judged = judge_answers(judges, exchanges, given, human, sources, seed=seed) if judges else None
    if judged and np.isnan(human).any():
        check_informative(judges, given, judged, human, [exchange.prompt for exchange in exchanges])
    answers, ids = _answers(known, sources, judged), tuple(judge.judge_id for judge in judges)
    rest = iter(answers)
    labeled = [_with_flags(row, list(islice(rest, len(flags_of(row)))), ids) for row in rows]
    orders = sum("chosen" in row and order_source(row) == JUDGE for row in rows)
    ordered = fill_orders(labeled, order_judge)
    sample = judged.sample if judged else None
    return LabeledSet(
        ordered.rows,
        LabelingReport(
            judges=ids,
            order_judge=order_judge.judge_id if order_judge else None,
            safety=_counts((name for _, name, _ in answers), (*HUMAN, JUDGE, UNPARSED)),
            order=_counts(ordered.sources, (*HUMAN, JUDGE, UNKNOWN)),
            sample=sample.origin if sample else None,
            errors=judged.errors if judged else (),
            order_error=ordered.error,
            prior=_base_rate(human[sample.inside]) if sample else None,
            calibrated=judged.calibrated if judged else "not",
            in_sample=judged.in_sample if judged else (),
            turned=ordered.turned,
            rejudged=(sources.count(JUDGE) if judges else 0) + (orders if order_judge else 0),
        ),
    )


# The flag of an answer, its source, and the judges' word on it.
_Answer = tuple[float | None, str, dict[str, float] | None]


def _answers(known: Sequence[float | None], sources: Sequence[str], judged: JudgedAnswers | None) -> list[_Answer]:
    """People's flag where there is one, else the judges' verdict; without judges, an earlier judge's labels stay."""
    answers: list[_Answer] = []
    for at, (flag, name) in enumerate(zip(known, sources, strict=True)):
        word = None
        if judged and not np.isnan(judged.verdicts[at]):
            word = {"verdict": float(judged.verdicts[at]), "probability": float(judged.probabilities[at])}
        if name in HUMAN or judged is None:
            answers.append((flag, name, word))
        else:
            answers.append((word["verdict"], JUDGE, word) if word else (None, UNPARSED, None))
    return answers


def _with_flags(row: Row, answers: list[_Answer], judges: Sequence[str]) -> Row:
    """The row with the flag of every answer, its source, and the word of the judges that were asked, if any were."""
    flags, names, words = map(list, zip(*answers, strict=True))
    if "chosen" in row:
        labels: dict[str, Any] = {"chosen_is_safe": flags[0], "rejected_is_safe": flags[1]}
        by = {"chosen": names[0], "rejected": names[1], "order": order_source(row)}
        judged = {"chosen": words[0], "rejected": words[1]}
    else:
        labels, by, judged = {"is_safe": flags}, {"answers": names}, {"answers": words}
    # The word on a pair's order stays.
    noted = {"judged_as": (row.get("judged_as") or {}) | judged | {"judges": list(judges)}} if judges else {}
    return row | labels | {"labelled_by": by} | noted


def _base_rate(is_safe: np.ndarray) -> float:
    """P(safe) of a source from people's labels, with Jeffreys' half an answer on each side."""
    return (float(is_safe.sum()) + 0.5) / (len(is_safe) + 1)


def _counts(names: Iterable[str], known: Sequence[str]) -> dict[str, int]:
    found = Counter(names)
    return {name: found[name] for name in known}
