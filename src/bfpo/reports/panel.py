"""Panels of the page and their tables, whose columns are listed one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bfpo.reports.drawing import Plot
from bfpo.reports.formats import format_estimate
from bfpo.reports.report import ReportModel
from bfpo.statistics.intervals import Estimate

Tone = Literal["", "good", "bad", "few"]


@dataclass(frozen=True)
class TableCell:
    """A cell: its text, its color and a smaller second line."""

    text: str
    tone: Tone = ""
    note: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table; a table's columns are a list of these.

    Attributes:
        title: its heading.
        cell: makes its cell from the object that a row is about.
        note: smaller second line of the heading.
    """

    title: str
    cell: Callable[[Any], TableCell | str]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption; the first cell of a row is the row's heading.

    Attributes:
        caption: what the table shows.
        head: the headings.
        rows: cells, one for each heading.
        folded: whether it is closed at first, because a plot above it shows the same.
    """

    caption: str
    head: Sequence[TableCell]
    rows: Sequence[Sequence[TableCell]]
    folded: bool = False

    @classmethod
    def of(cls, caption: str, columns: Sequence[Column], rows: Iterable[Any], *, folded: bool = False) -> Table:
        """A table from its columns and the objects that its rows are about."""
        head = [TableCell(column.title, note=column.note) for column in columns]
        return cls(caption, head, [[_cell(column.cell(row)) for column in columns] for row in rows], folded)


def _cell(made: TableCell | str) -> TableCell:
    return made if isinstance(made, TableCell) else TableCell(made)


def model_columns(models: Sequence[ReportModel], cell: Callable[[Any, ReportModel], TableCell | str]) -> list[Column]:
    """A column for each model."""
    return [Column(model.name, lambda row, model=model: cell(row, model)) for model in models]


def estimate_or_dash(estimate: Estimate | None, mark: str = "") -> str:
    """A figure with its interval; a dash where it was not measured."""
    return f"{format_estimate(estimate)}{mark}" if estimate else "–"


@dataclass(frozen=True)
class Panel:
    """A section of the page.

    Attributes:
        anchor: its id.
        title: its heading.
        lead: what to look for, in a sentence or two.
        plots: its plots.
        choices: names of the plots, if they are shown one at a time.
        tables: its tables.
        notes: how to read it.
        absent: why there is nothing to show; then all else is empty.
    """

    anchor: str
    title: str
    lead: str = ""
    plots: Sequence[Plot] = ()
    choices: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    absent: str = ""
