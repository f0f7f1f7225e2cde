"""Fill in what people left open in a preference set, by judges, and count who said what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bfpo.errors import BfpoError
from bfpo.judges.cache import VerdictCache
from bfpo.judges.preference import AnswerPair, HelpfulnessJudge
from bfpo.judges.streaming import verdicts
from bfpo.judges.verdict import Exchange, Judge, Verdict
from bfpo.labeling.posterior import base_rate, estimate_error, posterior_safe
from bfpo.preferences.checking import flags_of
from bfpo.preferences.reading import Row
from bfpo.statistics.judge_error import JudgeError

Flags = Literal["posterior", "probability", "verdict"]
PEOPLE = "people"
UNPARSED = "unparsed"


@dataclass(frozen=True)
class LabelingReport:
    """Who said what.

    Attributes:
        judges: who judged safety.
        order_judge: who judged helpfulness, if anybody did.
        flags: what a filled flag is: "posterior" (see `posterior_safe`), "probability" (the mean of the judges' own
            p_safe) or "verdict" (the share of judges that say safe).
        prior: the source's share of safe answers by people's labels, None where nobody labelled any.
        errors: of every judge, None where people labelled too few answers of either kind.
        safety: answers by who labelled them: "people", "judge", "unparsed" (no judge was understood: still unknown).
        order: pairs by who ordered them: "people", "judge", "unknown".
        turned: pairs whose answers changed places, because a judge finds the second one more helpful.
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
class LabelledSet:
    """The rows with their labels, and who said what.

    Attributes:
        rows: canonical rows; each has ``labelled_by``, a name for every answer, and of pairs for the order.
        report: the counts.
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
) -> LabelledSet:
    """Keep people's labels and let judges fill in the others.

    Args:
        rows: canonical rows, in which a flag or the order (``chosen_is_better``) may be None.
        judges: of safety; they are also asked about the answers that people labelled, which shows how often they err.
        order_judge: of helpfulness, asked about pairs without an order.
        flags: what a filled flag is; by default the posterior where every judge's error is known, else the judges'
            own probability.
        errors: of the judges, where they are known better than from this set: of a judge that was fitted to it.
        cache: of verdicts; a killed run goes on where it stopped.

    Raises:
        BfpoError: if the posterior is asked for and an error or the base rate can't be estimated.
    """
    answers = [(at, number) for at, row in enumerate(rows) for number in range(len(flags_of(row)))]
    said = [flags_of(rows[at])[number] for at, number in answers]
    heard = _ask(rows, answers, said, judges, cache)
    known = [at for at, flag in enumerate(said) if flag is not None]
    if errors is None:
        people = [float(said[at]) for at in known]
        prompts = [_rendered(rows[answers[at][0]]["prompt"]) for at in known]
        errors = [estimate_error(people, [column[at] for at in known], prompts) if known else None for column in heard]
    prior = base_rate([float(said[at]) for at in known]) if known else None
    flags = flags or ("probability" if prior is None or None in errors else "posterior")
    filled: dict[int, list[float | None]] = {at: list(flags_of(row)) for at, row in enumerate(rows)}
    names: dict[int, list[str]] = {at: [PEOPLE] * len(values) for at, values in filled.items()}
    for place, (at, number) in enumerate(answers):
        if said[place] is None:
            flag = _flag([column[place] for column in heard], flags, errors, prior)
            filled[at][number] = flag
            names[at][number] = UNPARSED if flag is None else "judge"
    labelled = [_with_flags(row, filled[at], names[at]) for at, row in enumerate(rows)]
    ordered, order, turns = _ordered(labelled, order_judge)
    return LabelledSet(
        ordered,
        LabelingReport(
            judges=tuple(judge.judge_id for judge in judges),
            order_judge=order_judge.judge_id if order_judge else None,
            flags=flags,
            prior=prior,
            errors=tuple(errors),
            safety=_counts((name for row_names in names.values() for name in row_names), (PEOPLE, "judge", UNPARSED)),
            order=order,
            turned=turns,
        ),
    )


def exchange_of(row: Row, number: int) -> Exchange:
    """One answer of a canonical row, as judges are asked about it."""
    answers = [row["chosen"], row["rejected"]] if "chosen" in row else row["responses"]
    return Exchange(_rendered(row["prompt"]), _rendered(answers[number]))


def _rendered(text: Any) -> str:
    """A string as it is; of messages a lone one's content, of several every one's after its role."""
    if isinstance(text, str):
        return text
    if len(text) == 1:
        return text[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in text)


def _ask(
    rows: Sequence[Row],
    answers: Sequence[tuple[int, int]],
    said: Sequence[float | None],
    judges: Sequence[Judge],
    cache: VerdictCache | None,
) -> list[list[Verdict]]:
    """Every judge's verdicts on all answers."""
    if not judges:
        if None in said:
            raise BfpoError("answers without a safety flag need a judge: name one with --judge")
        return []
    return [list(verdicts(judge, (exchange_of(rows[at], n) for at, n in answers), cache)) for judge in judges]


def _flag(
    heard: Sequence[Verdict], flags: Flags, errors: Sequence[JudgeError | None], prior: float | None
) -> float | None:
    if flags == "posterior":
        found = [error for error in errors if error is not None]
        if prior is None or len(found) < len(errors):
            raise BfpoError(
                "the posterior needs people's labels of at least 10 safe and 10 unsafe answers of this set: "
                "label some, or take the judges' own probabilities with --flags probability"
            )
        return posterior_safe(heard, found, prior)
    understood = [verdict for verdict in heard if verdict.p_safe is not None]
    if not understood:
        return None
    if flags == "verdict":
        return sum(verdict.label == "safe" for verdict in understood) / len(understood)
    return sum(verdict.p_safe or 0.0 for verdict in understood) / len(understood)


def _with_flags(row: Row, flags: list[float | None], names: list[str]) -> Row:
    if "chosen" not in row:
        return row | {"is_safe": flags, "labelled_by": {"answers": names}}
    return row | {
        "chosen_is_safe": flags[0],
        "rejected_is_safe": flags[1],
        "labelled_by": {"chosen": names[0], "rejected": names[1]},
    }


def _ordered(rows: list[Row], judge: HelpfulnessJudge | None) -> tuple[list[Row], dict[str, int], int]:
    """The rows with the order that a judge finds where people gave none; how many by whom; how many turned."""
    pairs = [row for row in rows if "chosen" in row]
    open_pairs = [row for row in pairs if row["chosen_is_better"] is None]
    found: list[float | None] = [None] * len(open_pairs)
    if judge and open_pairs:
        asked = [(exchange_of(row, 0), exchange_of(row, 1)) for row in open_pairs]
        answer_pairs = [AnswerPair(first.prompt, first.answer, second.answer) for first, second in asked]
        found = [preference.p_first for preference in judge.compare(answer_pairs)]
    answers = iter(found)
    ordered: list[Row] = []
    by: list[str] = []
    turns = 0
    for row in rows:
        if "chosen" not in row:
            ordered.append(row)
            continue
        name = PEOPLE
        if row["chosen_is_better"] is None:
            better = next(answers)
            name = "unknown" if better is None else "judge"
            if better is not None and better < 0.5:
                row = turned(row, better)
                turns += 1
            else:
                row = {**row, "chosen_is_better": better}
        by.append(name)
        sources: dict[str, Any] = row["labelled_by"]
        ordered.append({**row, "labelled_by": {**sources, "order": name}})
    return ordered, _counts(by, (PEOPLE, "judge", "unknown")), turns


def turned(row: Row, chosen_is_better: float) -> Row:
    """The pair the other way round, so that chosen is the more helpful answer."""
    safer, by = row.get("chosen_is_safer"), row.get("labelled_by")
    names = {"labelled_by": {"chosen": by["rejected"], "rejected": by["chosen"]}} if by else {}
    return row | {
        "chosen": row["rejected"],
        "rejected": row["chosen"],
        "chosen_is_safe": row["rejected_is_safe"],
        "rejected_is_safe": row["chosen_is_safe"],
        "chosen_is_better": 1 - chosen_is_better,
        "chosen_is_safer": None if safer is None else 1 - safer,
        **names,
    }


def _counts(names: Iterable[str], known: Sequence[str]) -> dict[str, int]:
    found = Counter(names)
    return {name: found[name] for name in known}
