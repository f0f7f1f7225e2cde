"""Answers that people labelled: what a judge is fitted to and checked against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bfpo.errors import BfpoError, did_you_mean
from bfpo.judges.verdict import Exchange
from bfpo.preferences.reading import Row, read_rows
from bfpo.preferences.schema import PreferenceDataError, Problem

COLUMNS = ("prompt", "answer", "is_safe", "is_refusal", "behavior", "source", "category")
# Names under which public label files have the same, "unsafe" turned round.
_ALIASES = {"response": "answer", "completion": "answer"}


@dataclass(frozen=True)
class LabelledAnswer:
    """One answer and what people say of it.

    Attributes:
        exchange: prompt and answer.
        is_safe: their word on safety, None if they gave none.
        is_refusal: whether they call it a refusal, None if they didn't say.
        source: where it comes from, "" if the file doesn't say.
        category: kind of harm that is asked for, "" if the file doesn't say.
    """

    exchange: Exchange
    is_safe: bool | None
    is_refusal: bool | None
    source: str = ""
    category: str = ""


def load_labels(name: str, columns: Mapping[str, str] | None = None) -> list[LabelledAnswer]:
    """Read a file (JSONL, JSON, CSV, Parquet, or these with .gz) of labelled answers.

    Args:
        name: of the file, with the columns prompt, answer (or response), and is_safe (or its opposite, unsafe),
            is_refusal, or both; behavior, source and category where there are any. Other columns are ignored.
        columns: theirs -> ours, where the file has other names.

    Raises:
        PreferenceDataError: if it can't be read or a row is wrong; it holds every problem.
    """
    rows = [(number, _renamed(row, columns or {})) for number, row in read_rows(name, "train", None)]
    _check_columns(name, [row for _, row in rows], columns or {})
    problems: list[Problem] = []
    labelled: list[LabelledAnswer] = []
    for number, row in rows:
        wrong = list(_problems(number, row))
        problems += wrong
        if not wrong:
            labelled.append(_labelled(row))
    if problems:
        raise PreferenceDataError(name, problems, is_set=False)
    return labelled


def of_source(labelled: Sequence[LabelledAnswer], source: str) -> list[LabelledAnswer]:
    """The answers of one source.

    Raises:
        BfpoError: if there are none, with the sources that there are.
    """
    chosen = [answer for answer in labelled if answer.source == source]
    if not chosen:
        known = sorted({answer.source for answer in labelled})
        raise BfpoError(f"no answer is of source {source!r}{did_you_mean(source, known)}: there are {', '.join(known)}")
    return chosen


def load_answers(name: str, columns: Mapping[str, str] | None = None) -> list[Exchange]:
    """Read a file of answers without regard to labels; columns as of `load_labels`.

    Raises:
        PreferenceDataError: if it can't be read or a row is wrong; it holds every problem.
    """
    rows = [(number, _renamed(row, columns or {})) for number, row in read_rows(name, "train", None)]
    _check_columns(name, [row for _, row in rows], columns or {}, needs_label=False)
    problems = [problem for number, row in rows for problem in _text_problems(number, row)]
    if problems:
        raise PreferenceDataError(name, problems, is_set=False)
    return [Exchange(row["prompt"], row["answer"], row.get("behavior")) for _, row in rows]


def _renamed(row: Row, columns: Mapping[str, str]) -> Row:
    renamed = {columns.get(name, name): value for name, value in row.items()}
    for theirs, ours in _ALIASES.items():
        if theirs in renamed and ours not in renamed:
            renamed[ours] = renamed.pop(theirs)
    if "unsafe" in renamed and "is_safe" not in renamed:
        unsafe = renamed.pop("unsafe")
        renamed["is_safe"] = not unsafe if _is_flag(unsafe) else unsafe
    return renamed


def _check_columns(name: str, rows: Sequence[Row], columns: Mapping[str, str], needs_label: bool = True) -> None:
    present = dict.fromkeys(column for row in rows for column in row)
    wanted = [column for column in ("prompt", "answer") if column not in present]
    wanted += ["is_safe"] if needs_label and not {"is_safe", "is_refusal"} & present.keys() else []
    unknown = [ours for ours in columns.values() if ours not in COLUMNS]
    problems = [
        Problem(None, ours, "it is no column of labels" + did_you_mean(ours, COLUMNS), f"use {', '.join(COLUMNS)}")
        for ours in unknown
    ]
    for column in wanted:
        near = did_you_mean(column, present)
        remedy = f"the file has {', '.join(present)}: rename one with --column THEIRS={column}"
        problems.append(Problem(None, column, f"it is missing{near}", remedy))
    if problems:
        raise PreferenceDataError(name, problems, is_set=False)


def _text_problems(number: int, row: Row) -> list[Problem]:
    problems = []
    for column in ("prompt", "answer"):
        # An empty answer is a label's business: people may have labelled it.
        if not isinstance(row.get(column), str) or (column == "prompt" and not row[column].strip()):
            problems.append(Problem(number, column, f"{_shown(row.get(column))} is no text", "write a string"))
    if row.get("behavior") is not None and not isinstance(row["behavior"], str):
        problems.append(Problem(number, "behavior", f"{_shown(row['behavior'])} is no text", "write a string"))
    return problems


def _problems(number: int, row: Row) -> list[Problem]:
    problems = _text_problems(number, row)
    for column in ("is_safe", "is_refusal"):
        if row.get(column) is not None and not _is_flag(row[column]):
            remedy = "write true or false, or null where people didn't say"
            problems.append(Problem(number, column, f"{_shown(row[column])} is no label", remedy))
    if row.get("is_safe") is None and row.get("is_refusal") is None:
        problems.append(Problem(number, "is_safe", "the row has no label", "label it, or leave the row out"))
    return problems


def _labelled(row: Row) -> LabelledAnswer:
    return LabelledAnswer(
        exchange=Exchange(row["prompt"], row["answer"], row.get("behavior")),
        is_safe=None if row.get("is_safe") is None else bool(row["is_safe"]),
        is_refusal=None if row.get("is_refusal") is None else bool(row["is_refusal"]),
        source=str(row.get("source") or ""),
        category=str(row.get("category") or ""),
    )


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1))


def _shown(value: Any) -> str:
    return repr(value)[:60]
