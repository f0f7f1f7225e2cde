"""Data types for panels of the page and their tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bfpo.reports.charts import ChartRow, Series
from bfpo.reports.drawing import Plot
from bfpo.reports.formats import format_estimate
from bfpo.reports.report import ReportModel
from bfpo.statistics.intervals import Estimate

Tone = Literal["", "good", "bad", "few"]


@dataclass(frozen=True)
class TableCell:
    """A cell with its text, color and smaller second line."""

    text: str
    tone: Tone = ""
    note: str = ""


@dataclass(frozen=True)
class Column:
    """A column: its heading with a smaller second line, and the function from a row's object to the cell."""

    title: str
    cell: Callable[[Any], TableCell | str]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is the row's heading.

    A folded table is collapsed at first, because a plot above shows the same.
    """

    caption: str
    head: Sequence[TableCell]
    rows: Sequence[Sequence[TableCell]]
    folded: bool = False

    @classmethod
    def of(cls, caption: str, columns: Sequence[Column], rows: Iterable[Any], *, folded: bool = False) -> Table:
        """A table from its columns and one object per row."""
        head = [TableCell(column.title, note=column.note) for column in columns]
        made = [[column.cell(row) for column in columns] for row in rows]
        cells = [[cell if isinstance(cell, TableCell) else TableCell(cell) for cell in row] for row in made]
        return cls(caption, head, cells, folded)


def model_columns(models: Sequence[ReportModel], cell: Callable[[Any, ReportModel], TableCell | str]) -> list[Column]:
    """A column for each model."""
    return [Column(model.name, lambda row, model=model: cell(row, model)) for model in models]


def estimate_or_dash(estimate: Estimate | None, mark: str = "") -> str:
    """A figure with its interval, or a dash if it wasn't measured."""
    return f"{format_estimate(estimate)}{mark}" if estimate else "–"


def rates_table(caption: str, series: Sequence[Series], rows: Iterable[ChartRow]) -> Table:
    """The figures of a chart, folded: a column for each series, and a star where a row is marked."""
    columns = (
        Column("group", lambda row: TableCell(row.name, note=f"n = {max(e.n for e in row.values.values()):,}")),
        *(
            Column(one.name, lambda row, at=at: estimate_or_dash(row.values.get(at), "*" * (at in row.marked)))
            for at, one in enumerate(series)
        ),
    )
    return Table.of(caption, columns, [row for row in rows if row.values], folded=True)


@dataclass(frozen=True)
class Panel:
    """A section of the page.

    Attributes:
        anchor: its id.
        lead: introduction of one or two sentences.
        choices: names of the plots, if they are shown one at a time.
        notes: explanations below the content.
        absent: reason why there is nothing to show, in place of all content.
    """

    anchor: str
    title: str
    lead: str = ""
    plots: Sequence[Plot] = ()
    choices: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    absent: str = ""
