"""Answers labeled by people, for fitting and checking judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bfpo.errors import BfpoError, did_you_mean
from bfpo.judges.exchanges import exchange_of
from bfpo.judges.verdict import Exchange
from bfpo.preferences.answers import flags_of
from bfpo.preferences.harm import marked_categories
from bfpo.preferences.label_columns import JUDGE, QUEUE, flag_sources
from bfpo.preferences.label_sources import rows_with_sources
from bfpo.preferences.reading import Row, is_csv, parse_cell, read_rows
from bfpo.preferences.schema import PreferenceDataError, Problem
from bfpo.preferences.shapes import detect
from bfpo.preferences.source_columns import renamed

COLUMNS = ("prompt", "answer", "is_safe", "is_refusal", "behavior", "source", "category")
# Column names of public label files; "unsafe" is handled separately.
_ALIASES = {"response": "answer", "completion": "answer"}
_FLAGS = ("is_safe", "is_refusal")


@dataclass(frozen=True)
class LabeledAnswer:
    """One answer with people's labels.

    Attributes:
        exchange: prompt and answer.
        is_safe: label of safety; None if missing.
        is_refusal: label of refusal; None if missing.
        source: source of the answer; "" if unknown.
        category: kind of harm in the prompt; "" if unknown.
        from_queue: whether people labeled it because the queue of `bfpo label` asked, which asks about the answers
            that are hardest for a judge. Its random part doesn't count as such.
    """

    exchange: Exchange
    is_safe: bool | None
    is_refusal: bool | None
    source: str = ""
    category: str = ""
    from_queue: bool = False

    def label(self, target: str) -> bool | None:
        """The label of a target, "safety" or "refusal"."""
        return self.is_safe if target == "safety" else self.is_refusal


def load_labels(name: str, columns: Mapping[str, str] | None = None) -> list[LabeledAnswer]:
    """Read a file (JSONL, JSON, CSV, Parquet, or these with .gz) of labeled answers, or a preference set.

    Args:
        name: path of the file, with the columns prompt, answer (or response), at least one of is_safe (or its opposite,
            unsafe) and is_refusal, and optionally behavior, source and category; other columns are ignored. Or a
            preference set in any form that `load_preferences` reads: all its answers, with the labels that people gave
            (a probability counts as the nearer label, 1/2 and a judge's label as none).
        columns: columns to rename, theirs to ours.

    Raises:
        PreferenceDataError: if the file can't be read or a row is wrong; with every problem.
    """
    return _answers(name, columns or {}, needs_label=True)


def load_answers(name: str, columns: Mapping[str, str] | None = None) -> list[Exchange]:
    """Read answers like `load_labels`, without labels.

    Raises:
        PreferenceDataError: if the file can't be read or a row is wrong; with every problem.
    """
    return [answer.exchange for answer in _answers(name, columns or {}, needs_label=False)]


def _answers(name: str, columns: Mapping[str, str], needs_label: bool) -> list[LabeledAnswer]:
    rows = [(number, renamed(row, columns)) for number, row in read_rows(name, "train", None)]
    if _is_preference_set(rows):
        return [answer for row in rows_with_sources(name, columns=columns) for answer in _labeled_answers(row)]
    return [
        LabeledAnswer(
            exchange=Exchange(row["prompt"], row["answer"], row.get("behavior")),
            is_safe=None if row.get("is_safe") is None else bool(row["is_safe"]),
            is_refusal=None if row.get("is_refusal") is None else bool(row["is_refusal"]),
            source=str(row.get("source") or ""),
            category=_category(row.get("category")),
        )
        for row in _checked_rows(name, rows, columns, needs_label)
    ]


def _labeled_answers(row: Row) -> Iterator[LabeledAnswer]:
    shown = _category(row.get("category"))
    for number, (flag, source) in enumerate(zip(flags_of(row), flag_sources(row), strict=True)):
        is_safe = None if source == JUDGE or flag in (None, 0.5) else flag > 0.5
        asked = source == QUEUE
        yield LabeledAnswer(exchange_of(row, number), is_safe, None, row.get("source", ""), shown, asked)


def _category(category: Any) -> str:
    """A row's category as text: one name, or several with commas."""
    names = marked_categories(category)
    return ", ".join(map(str, names)) if isinstance(names, list) else str(names or "")


def representative(labeled: Sequence[LabeledAnswer]) -> list[LabeledAnswer]:
    """The answers that a judge's errors can be measured on: those that weren't labeled because the queue asked.

    Raises:
        BfpoError: if there were some and none is left.
    """
    left = [answer for answer in labeled if not answer.from_queue]
    if labeled and not left:
        raise BfpoError(
            "all these labels answer the queue of 'bfpo label', which asks for what is hardest: a judge's errors need "
            "labels of answers that were drawn at random, such as those of the queue's random part"
        )
    return left


def of_source(labeled: Sequence[LabeledAnswer], source: str) -> list[LabeledAnswer]:
    """The answers from one source.

    Raises:
        BfpoError: if there are none; the message lists the sources.
    """
    chosen = [answer for answer in labeled if answer.source == source]
    if not chosen:
        known = sorted({answer.source for answer in labeled})
        raise BfpoError(
            f"no answer is from source {source!r}{did_you_mean(source, known)}; the sources are {', '.join(known)}"
        )
    return chosen


_Numbered = list[tuple[int, Row]]


def _is_preference_set(rows: _Numbered) -> bool:
    present = dict.fromkeys(column for _, row in rows for column in row)
    has_answers = "prompt" in present and any(name in present for name in ("answer", *_ALIASES))
    return not has_answers and detect(present, present)[0] is not None


def _checked_rows(name: str, rows: _Numbered, columns: Mapping[str, str], needs_label: bool) -> list[Row]:
    rows = [(number, _with_own_names(row, is_csv(name))) for number, row in rows]
    _check_columns(name, [row for _, row in rows], columns, needs_label)
    problems = [problem for number, row in rows for problem in _problems(number, row, needs_label)]
    if problems:
        raise PreferenceDataError(name, problems, is_set=False)
    return [row for _, row in rows]


def _with_own_names(row: Row, from_csv: bool) -> Row:
    own = dict(row)
    for theirs, ours in _ALIASES.items():
        if theirs in own and ours not in own:
            own[ours] = own.pop(theirs)
    if from_csv:
        own |= {column: parse_cell(own[column]) for column in (*_FLAGS, "unsafe") if isinstance(own.get(column), str)}
        # An empty cell is null, but an empty answer may have labels.
        own |= {"answer": ""} if own.get("answer", "") is None else {}
    if own.get("unsafe") is not None and own.get("is_safe") is None:
        unsafe = own.pop("unsafe")
        own["is_safe"] = not unsafe if _is_flag(unsafe) else unsafe
    return own


def _check_columns(name: str, rows: Sequence[Row], columns: Mapping[str, str], needs_label: bool) -> None:
    present = dict.fromkeys(column for row in rows for column in row)
    wanted = [column for column in ("prompt", "answer") if column not in present]
    wanted += ["is_safe"] if needs_label and not {"is_safe", "is_refusal"} & present.keys() else []
    unknown = [ours for ours in columns.values() if ours and ours not in (*COLUMNS, *_ALIASES, "unsafe")]
    problems = [
        Problem(None, ours, "it is not a label column" + did_you_mean(ours, COLUMNS), f"use {', '.join(COLUMNS)}")
        for ours in unknown
    ]
    for column in wanted:
        near = did_you_mean(column, present)
        remedy = f"the file has {', '.join(present)}: rename one with --column THEIRS={column}"
        problems.append(Problem(None, column, f"it is missing{near}", remedy))
    if problems:
        raise PreferenceDataError(name, problems, is_set=False)


def _problems(number: int, row: Row, needs_label: bool) -> Iterator[Problem]:
    for column in ("prompt", "answer", "behavior"):
        text = row.get(column)
        if text is None and column == "behavior":
            continue
        # Empty answers may have labels.
        if not isinstance(text, str) or (column == "prompt" and not text.strip()):
            yield Problem(number, column, f"{_shown(text)} is not a string", "write a string")
    if not needs_label:
        return
    for column in _FLAGS:
        if row.get(column) is not None and not _is_flag(row[column]):
            remedy = "write true, false, or null if unlabeled"
            yield Problem(number, column, f"{_shown(row[column])} is not a label", remedy)
    if row.get("unsafe") is not None and row["unsafe"] != (not row["is_safe"]):
        problem = f"{_shown(row['unsafe'])} contradicts is_safe {_shown(row['is_safe'])}"
        yield Problem(number, "unsafe", problem, "correct one of the two, or leave one out")
    if row.get("is_safe") is None and row.get("is_refusal") is None:
        yield Problem(number, "is_safe", "the row has no label", "label it, or leave the row out")


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1))


def _shown(value: Any) -> str:
    return repr(value)[:60]
