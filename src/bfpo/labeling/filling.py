"""Filling in of missing labels by judges, with counts of the sources of all labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from bfpo.errors import BfpoError
from bfpo.judges.cache import VerdictCache
from bfpo.judges.preference import AnswerPair, HelpfulnessJudge
from bfpo.judges.streaming import verdicts
from bfpo.judges.verdict import Exchange, Judge, Verdict
from bfpo.labeling.posterior import base_rate, estimate_error, posterior_safe
from bfpo.preferences.checking import flags_of
from bfpo.preferences.messages import message_text
from bfpo.preferences.ordering import swapped
from bfpo.preferences.reading import Row
from bfpo.statistics.judge_error import JudgeError

Flags = Literal["posterior", "probability", "verdict"]
PEOPLE = "people"
UNPARSED = "unparsed"


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
    """

    judges: tuple[str, ...]
    order_judge: str | None
    flags: Flags
    prior: float | None
    errors: tuple[JudgeError | None, ...]
    safety: dict[str, int]
    order: dict[str, int]
    turned: int


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
        rows: canonical rows, in which flags and the order (``chosen_is_better``) may be None.
        judges: safety judges; they also judge the answers that people labeled, to estimate their errors.
        order_judge: helpfulness judge for pairs without an order.
        flags: meaning of filled flags; by default the posterior if every judge's error is known, otherwise the
            judges' own probability.
        errors: known errors of the judges, for example of a judge that was fitted to this set; by default estimated.
        cache: cache of verdicts, from which an interrupted run resumes.

    Raises:
        BfpoError: if an answer without a flag has no judge, or the posterior can't be computed.
    """
    given = [flag for row in rows for flag in flags_of(row)]
    if None in given and not judges:
        raise BfpoError("answers without a safety flag need a judge: name one with --judge")
    exchanges = [exchange_of(row, number) for row in rows for number in range(len(flags_of(row)))]
    judged = [list(verdicts(judge, exchanges, cache)) for judge in judges]
    known = [at for at, flag in enumerate(given) if flag is not None]
    people = [float(given[at]) for at in known]
    if errors is None:
        prompts = [exchanges[at].prompt for at in known]
        errors = [estimate_error(people, [column[at] for at in known], prompts) if known else None for column in judged]
    prior = base_rate(people) if known else None
    flags = flags or ("probability" if prior is None or None in errors else "posterior")
    answers: list[tuple[float | None, str]] = []
    for at, flag in enumerate(given):
        if flag is None:
            found = _flag([column[at] for column in judged], flags, errors, prior)
            answers.append((found, UNPARSED if found is None else "judge"))
        else:
            answers.append((flag, PEOPLE))
    rest = iter(answers)
    labeled = [_with_flags(row, list(islice(rest, len(flags_of(row))))) for row in rows]
    ordered, order, swaps = _ordered(labeled, order_judge)
    return LabeledSet(
        ordered,
        LabelingReport(
            judges=tuple(judge.judge_id for judge in judges),
            order_judge=order_judge.judge_id if order_judge else None,
            flags=flags,
            prior=prior,
            errors=tuple(errors),
            safety=_counts((name for _, name in answers), (PEOPLE, "judge", UNPARSED)),
            order=order,
            turned=swaps,
        ),
    )


def exchange_of(row: Row, number: int) -> Exchange:
    """One answer of a canonical row as an exchange for judges."""
    answers = [row["chosen"], row["rejected"]] if "chosen" in row else row["responses"]
    return Exchange(_rendered(row["prompt"]), _rendered(answers[number]))


def _rendered(text: Any) -> str:
    """A string itself, the text of a single message, or several messages with their roles."""
    if isinstance(text, str):
        return text
    if len(text) == 1:
        return message_text(text[0])
    return "\n\n".join(f"{message['role']}: {message_text(message)}" for message in text)


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
    return row | {
        "chosen_is_safe": flags[0],
        "rejected_is_safe": flags[1],
        "labelled_by": {"chosen": names[0], "rejected": names[1]},
    }


def _ordered(rows: list[Row], judge: HelpfulnessJudge | None) -> tuple[list[Row], dict[str, int], int]:
    """The rows with missing orders filled in, counts by source of the order, and the number of swapped pairs."""
    open_pairs = [row for row in rows if "chosen" in row and row["chosen_is_better"] is None]
    found: list[float | None] = [None] * len(open_pairs)
    if judge and open_pairs:
        exchanges = [(exchange_of(row, 0), exchange_of(row, 1)) for row in open_pairs]
        answer_pairs = [AnswerPair(first.prompt, first.answer, second.answer) for first, second in exchanges]
        found = [preference.p_first for preference in judge.compare(answer_pairs)]
    answers = iter(found)
    ordered: list[Row] = []
    by: list[str] = []
    swaps = 0
    for row in rows:
        if "chosen" not in row:
            ordered.append(row)
            continue
        name = PEOPLE
        if row["chosen_is_better"] is None:
            better = next(answers)
            name = "unknown" if better is None else "judge"
            if better is not None and better < 0.5:
                row = swapped(row, better)
                swaps += 1
            else:
                row = dict[str, Any](row, chosen_is_better=better)
        by.append(name)
        ordered.append(row | {"labelled_by": row["labelled_by"] | {"order": name}})
    return ordered, _counts(by, (PEOPLE, "judge", "unknown")), swaps


def _counts(names: Iterable[str], known: Sequence[str]) -> dict[str, int]:
    found = Counter(names)
    return {name: found[name] for name in known}
