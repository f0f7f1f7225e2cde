"""The columns of a source: its shape, which optional ones it has, and the types of its canonical rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bfpo.errors import did_you_mean
from bfpo.preferences.messages import CARRIED, is_read, message_fields
from bfpo.preferences.prompts import CONTEXT_COLUMNS, is_blank
from bfpo.preferences.reading import Row, RowSource, with_our_name
from bfpo.preferences.schema import (
    GROUP_COLUMNS,
    HARM_COLUMNS,
    LABEL_COLUMNS,
    OPTIONAL_COLUMNS,
    PAIR_COLUMNS,
    REWARD_COLUMNS,
    TRUNCATED_COLUMNS,
    PreferenceDataError,
    Problem,
)
from bfpo.preferences.shapes import HARM_SOURCES, Shape, detect

if TYPE_CHECKING:
    import datasets

# Columns from which the harm of answers is read.
_HARM = (*HARM_COLUMNS["pairs"], *HARM_COLUMNS["groups"], *HARM_SOURCES)


@dataclass(frozen=True)
class SourceColumns:
    """What a source has, as far as it concerns the columns of canonical rows.

    Attributes:
        shape: its shape.
        optional: columns of `OPTIONAL_COLUMNS`, `REWARD_COLUMNS` and `TRUNCATED_COLUMNS` that hold anything.
        context: columns of `CONTEXT_COLUMNS` that hold anything.
        fields: fields of its messages besides role and content.
        lists_categories: whether a row has a list of categories.
        has_harm: whether a row has the harm of its answers by category.
        ignored: columns and fields of messages that are not read.
    """

    shape: Shape
    optional: tuple[str, ...]
    context: tuple[str, ...]
    fields: tuple[str, ...]
    lists_categories: bool
    has_harm: bool
    ignored: list[str]

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of canonical rows."""
        labels = PAIR_COLUMNS if self.shape.kind == "pairs" else GROUP_COLUMNS
        return labels + (HARM_COLUMNS[self.shape.kind] if self.has_harm else ()) + self.optional

    def features(self, row: Row) -> datasets.Features:
        """Types of the columns; all prompts are strings or messages like this row's."""
        import datasets
        from datasets import Value

        number, string = Value("float64"), Value("string")
        text: Any = string
        if isinstance(row["prompt"], list):
            text = [dict.fromkeys(("role", "content", *self.fields), string)]
        kinds: dict[str, Any] = {
            "prompt": text,
            "chosen": text,
            "rejected": text,
            "responses": [text],
            "helpfulness": [number],
            "is_safe": [number],
            "reward": [number],
            "truncated": [number],
            "category": [string] if self.lists_categories else string,
            "row": Value("int64"),
            **dict.fromkeys(("tools", *LABEL_COLUMNS), string),
            **dict.fromkeys(HARM_COLUMNS["pairs"], string),
            "harm": [string],
        }
        return datasets.Features({name: kinds.get(name, number) for name in self.names})

    def plain(self, value: Any, column: str) -> Any:
        """A value as it is stored: flags as numbers, messages with the same fields, categories as a list or not."""
        if column == "category" and self.lists_categories:
            return [value] if isinstance(value, str) else value
        if isinstance(value, list):
            return [self.plain(item, column) for item in value]
        if isinstance(value, dict):
            return {name: value.get(name) for name in ("role", "content", *self.fields)}
        # Integers may be larger than Arrow's.
        return float(value) if isinstance(value, bool | int) and column != "row" else value


def renamed(row: Row, columns: Mapping[str, str]) -> Row:
    """A row with our names of columns, without those that are to be left out."""
    kept = {name: columns.get(name, name) for name in row if columns.get(name) != ""}
    return {ours: row[name] if ours == name else with_our_name(ours, row[name]) for name, ours in kept.items()}


def scan(source: RowSource, columns: Mapping[str, str], problems: list[Problem]) -> SourceColumns:
    """Read a source once for its columns.

    Args:
        source: the source.
        columns: columns to rename, theirs to ours; "" leaves one out.
        problems: where unreadable rows are noted.

    Raises:
        PreferenceDataError: if the source has no known shape, a column can't be renamed, or it would be ignored with
            what it says.
    """
    theirs: set[str] = set()
    present: dict[str, None] = {}
    used: dict[str, None] = {}
    fields: dict[tuple[str, str], None] = {}
    lists_categories = has_tools = False
    for _, original in source.read(problems):
        theirs.update(original)
        row = renamed(original, columns)
        present.update(dict.fromkeys(row))
        used.update(dict.fromkeys(name for name, value in row.items() if not is_blank(value)))
        fields.update(dict.fromkeys(message_fields(row)))
        lists_categories = lists_categories or isinstance(row.get("category"), list | dict)
        # OpenAI's preference files have them inside of "input".
        holders = (row, row["input"]) if isinstance(row.get("input"), dict) else (row,)
        has_tools = has_tools or any(not is_blank(holder.get("tools")) for holder in holders)
    shape, wrong = detect(used, present) if theirs else (None, [])
    wrong += _renaming_problems(columns, theirs) if theirs else []
    if not theirs and not problems:
        wrong = [Problem(None, None, "no row has a column", "write {column: value} objects")]
    if shape is None or wrong:
        raise PreferenceDataError(source.name, [*problems, *wrong])
    optional = (
        name
        for name in (*OPTIONAL_COLUMNS, *REWARD_COLUMNS[shape.kind], *TRUNCATED_COLUMNS[shape.kind])
        if (has_tools if name == "tools" else name in used and name in shape.columns)
    )
    ignored = [f"{column}.{field}" for column, field in fields if column in shape.columns and not is_read(field)]
    return SourceColumns(
        shape=shape,
        optional=(*optional, *(LABEL_COLUMNS if shape.by_prompt else ())),
        context=tuple(name for name in CONTEXT_COLUMNS if name in used),
        fields=tuple(name for name in CARRIED if any(name == field for _, field in fields)),
        lists_categories=lists_categories,
        has_harm=any(name in used for name in _HARM if name in shape.columns),
        ignored=[*(name for name in present if name not in shape.columns), *ignored],
    )


def _renaming_problems(columns: Mapping[str, str], theirs: Collection[str]) -> list[Problem]:
    """Renamed columns that don't exist, or that would replace another one."""
    problems = []
    for old, new in columns.items():
        if old not in theirs:
            what = f"no row has the column that is renamed{did_you_mean(old, theirs)}"
            problems.append(Problem(None, old, what, f"there are {', '.join(sorted(theirs))}"))
        elif new and any(name != old and columns.get(name, name) == new for name in theirs):
            remedy = f"leave one out, e.g. with columns={{{new!r}: ''}} (--column {new}=)"
            problems.append(Problem(None, old, f"another column is called {new!r}, too", remedy))
    return problems
