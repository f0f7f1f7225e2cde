"""`label`: labels a preference set and writes it with a queue for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bfpo.errors import BfpoError
from bfpo.files import check_not_overwritten, check_replaceable, check_suffix, write_rows
from bfpo.judges.cache import VerdictCache
from bfpo.judges.preference import HelpfulnessJudge
from bfpo.judges.verdict import Judge
from bfpo.labeling import RANDOM_SHARE
from bfpo.labeling.filling import LabeledSet, label_preferences
from bfpo.labeling.judgments import is_judged, judgment_rows
from bfpo.labeling.people import with_answers
from bfpo.labeling.queue import queue_for_people
from bfpo.labeling.stored import stored_rows
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.preferences.answers import is_pair
from bfpo.preferences.label_columns import HUMAN
from bfpo.preferences.label_sources import rows_with_sources
from bfpo.preferences.reading import Row, open_source
from bfpo.preferences.schema import PreferenceDataError, Problem


def label(
    source: str,
    judges: Sequence[Judge],
    output: Path,
    *,
    order_judge: HelpfulnessJudge | None = None,
    labeling: GlobalPreference | None = None,
    cache: VerdictCache | None = None,
    answers: Sequence[str] = (),
    random_share: float = RANDOM_SHARE,
    judgments: int | None = None,
    seed: int = 0,
    reading: Mapping[str, Any] | None = None,
) -> LabeledSet:
    """Label a file or Hub data set, and queue the rows most worth labeling by hand.

    Rows are in temporary files beside the output, and of each only numbers in memory.

    Args:
        source: file or Hub data set of preferences.
        judges: safety judges.
        output: JSONL file for the labeled rows; the queue goes to ``NAME.queue.jsonl``. An earlier output for the same
            rows may be replaced, but no other file, and none in which people filled in answers.
        order_judge: helpfulness judge.
        labeling: labeling function for training, which orders the queue; the paper's by default.
        cache: cache of verdicts and preferences.
        answers: queues of earlier runs in which people filled in ``asks`` (see `with_answers`), in their order.
        random_share: share of the queue's rows that are drawn at random, from which errors are estimated.
        judgments: number of pairs for overall judgments, written to ``NAME.judgments.jsonl`` (see `judgment_rows`).
        seed: random seed for the draws and for the folds of the calibration.
        reading: further arguments of `load_preferences` (split, revision, columns).

    Raises:
        BfpoError: if the source has problems, a judge is missing, or ``output`` can't be written.
    """
    if not 0 <= random_share <= 1:
        raise BfpoError(f"the random share of the queue is {random_share:g}: write a number from 0 to 1")
    check_suffix(output, ".jsonl")
    _check_overwritten(source, output, answers, judgments is not None)
    rows = stored_rows(rows_with_sources(source, **(reading or {})), output.parent)
    _check_same_rows(output, rows)
    for name in answers:
        rows = with_answers(rows, name, output.parent)
    labeled = label_preferences(rows, judges, order_judge=order_judge, cache=cache, seed=seed, folder=output.parent)
    constants, prior = labeling or GlobalPreference(), labeled.report.prior
    queue = queue_for_people(labeled.rows, constants, prior, random_share=random_share, seed=seed)
    asked = None if judgments is None else judgment_rows(labeled.rows, judgments, seed=seed)
    # Judging can take hours, in which people may have gone on with an earlier queue.
    _check_overwritten(source, output, answers, judgments is not None)
    _check_corrected(output, labeled.rows)
    write_rows(queue_file(output), queue)
    write_rows(output, labeled.rows)
    if asked is None:
        return labeled
    write_rows(judgments_file(output), asked)
    return replace(labeled, judgments=len(asked))


def queue_file(output: Path) -> Path:
    """Path of the queue for a labeled file."""
    return output.with_name(f"{output.name.removesuffix('.jsonl')}.queue.jsonl")


def judgments_file(output: Path) -> Path:
    """Path of the pairs for overall judgments of a labeled file."""
    return output.with_name(f"{output.name.removesuffix('.jsonl')}.judgments.jsonl")


def _check_overwritten(source: str, output: Path, answers: Sequence[str], has_judgments: bool) -> None:
    """Refuse outputs that would replace an input, people's answers, or what isn't an earlier output."""
    # With a column that all rows of each have.
    outputs: list[tuple[Path, str, Callable[[Row], bool] | None, str]] = [
        (output, "labelled_by", None, ""),
        (queue_file(output), "asks", _is_answered, ", and give these answers with --answers"),
    ]
    outputs += [(judgments_file(output), "better", is_judged, "")] if has_judgments else []
    for written, column, has_answers, more in outputs:
        check_not_overwritten(written, [(source, "the source"), *((name, "a queue that is read") for name in answers)])
        check_replaceable(written, partial(_check_column, column), "an earlier output of 'bfpo label'")
        if has_answers and written.exists() and any(map(has_answers, _rows(written))):
            raise BfpoError(f"{written}: this would overwrite people's answers in it; name another file with -o{more}")


def _check_column(column: str, path: Path) -> None:
    if not all(column in row for row in _rows(path)):
        raise BfpoError(f"{path}: it has rows without {column!r}")


def _check_same_rows(output: Path, rows: Iterable[Row]) -> None:
    """Refuse to replace an earlier output for other rows; the source may have got more of them."""
    new = iter(rows)
    # Both are in the order of the source.
    for old in _rows(output) if output.exists() else ():
        row = next((row for row in new if row["row"] == old.get("row")), None)
        if row is None or row["prompt"] != old.get("prompt"):
            raise BfpoError(
                f"{output}: this would overwrite labels of other rows, as row {old.get('row')} there isn't in the "
                "source; name another file with -o, or move it away"
            )


def _check_corrected(output: Path, rows: Sequence[Row]) -> None:
    """Refuse to replace labels that people corrected in an earlier output, and that the source doesn't have."""
    if not output.exists():
        return
    new = iter(rows)
    row = next(new, None)
    # Both are in the order of the source.
    for old in _rows(output):
        while row and isinstance(old.get("row"), int) and row["row"] < old["row"]:
            row = next(new, None)
        if row and row["row"] == old.get("row") and (names := _own_labels(old, like=row) - _own_labels(row)):
            raise BfpoError(
                f"{output}: this would overwrite a label by people in row {old['row']} ({', '.join(sorted(names))}); "
                "name another file with -o, or label this file instead of the source"
            )


def _own_labels(row: Row, like: Row | None = None) -> set[str]:
    """Names of the labels that people gave, as another row calls them that may have its answers in another order."""
    by = row.get("labelled_by")
    if not isinstance(by, dict):
        return set()
    named = dict(enumerate(by["answers"])) if "answers" in by else by
    if like and is_pair(like) and row.get("chosen") != like["chosen"] == row.get("rejected"):
        named = {**named, "chosen": by.get("rejected"), "rejected": by.get("chosen")}
    return {str(name) for name, source in named.items() if source in HUMAN}


def _rows(path: Path) -> Iterator[Row]:
    if path.stat().st_size:
        source, problems = open_source(str(path)), list[Problem]()
        yield from (row for _, row in source.read(problems))
        if problems:
            raise PreferenceDataError(source.name, problems)


def _is_answered(queued: Row) -> bool:
    asks = queued.get("asks")
    return isinstance(asks, dict) and any(value is not None for value in asks.values())
