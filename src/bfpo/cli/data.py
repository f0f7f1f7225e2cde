"""``bfpo data``: contents and problems of a preference set."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from bfpo.cli.printing import Console, echo
from bfpo.errors import BfpoError

if TYPE_CHECKING:
    from bfpo.preferences.schema import Problem

app = typer.Typer(no_args_is_help=True, help="Inspect preference sets.")

# Rows that are named of those with the same problem.
_SHOWN_ROWS = 8

Source = Annotated[
    str, typer.Argument(help="A file or saved data set, a name from 'bfpo data list', or a data set on the Hub.")
]
Split = Annotated[str, typer.Option(help="Split of a data set on the Hub or in a saved folder.")]
Revision = Annotated[str | None, typer.Option(help="Revision of a Hub data set.")]
Rename = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="THEIRS=OURS", help="Rename a column, or leave it out (THEIRS=); repeatable."),
]
Unknown = Annotated[
    str | None, typer.Option(help="Policy for rows without safety flags: error, drop, or a probability of being safe.")
]
UnknownOrder = Annotated[
    str | None, typer.Option(help="Policy for rows that don't say which answer is more helpful: error, drop, or 0.5.")
]


def renaming(pairs: list[str] | None) -> dict[str, str]:
    """A map from theirs to ours, parsed from options ``--column theirs=ours``."""
    columns = {}
    for pair in pairs or []:
        theirs, separator, ours = pair.partition("=")
        if not separator:
            raise BfpoError(f"--column {pair}: write it as theirs=ours, for example --column safe=chosen_is_safe")
        if columns.get(theirs, ours) != ours:
            raise BfpoError(f"--column {pair}: {theirs!r} is also renamed to {columns[theirs]!r}; choose one name")
        columns[theirs] = ours
    return columns


def reading(source: str, split: str, revision: str | None, rename: list[str] | None) -> dict[str, Any]:
    """Options of reading a source, of which a file has neither splits nor revisions."""
    for option, unread in (("--split", split != "train"), ("--revision", revision)):
        if unread and os.path.isfile(source):
            raise BfpoError(
                f"{option}: {source} is a file, which has none; leave it out, or name a data set on the Hub"
            )
    return {"split": split, "revision": revision, "columns": renaming(rename)}


def _options(
    source: str,
    split: str,
    revision: str | None,
    rename: list[str] | None,
    unknown_safety: str | None,
    unknown_order: str | None,
) -> dict[str, Any]:
    safety = _policy("--unknown-safety", unknown_safety, "a probability")
    if isinstance(safety, float) and not 0 <= safety <= 1:
        raise BfpoError(f"--unknown-safety {unknown_safety}: a probability lies in [0, 1]")
    order = _policy("--unknown-order", unknown_order, "0.5")
    if isinstance(order, float) and order != 0.5:
        raise BfpoError(f"--unknown-order {unknown_order}: write error, drop, or 0.5")
    return reading(source, split, revision, rename) | {"unknown_safety": safety, "unknown_order": order}


def _policy(option: str, text: str | None, number: str) -> Any:
    """A policy as text or as its number."""
    if text in (None, "error", "drop"):
        return text
    try:
        return float(str(text))
    except ValueError:
        raise BfpoError(f"{option} {text}: write error, drop, or {number}") from None


@app.command()
def check(
    source: Source,
    split: Split = "train",
    revision: Revision = None,
    rename: Rename = None,
    unknown_safety: Unknown = None,
    unknown_order: UnknownOrder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Summarize a preference set and list all its problems; exits with code 2 if there are any."""
    from bfpo.preferences.loading import inspect_preferences
    from bfpo.preferences.schema import PreferenceDataError

    try:
        _, report = inspect_preferences(
            source, **_options(source, split, revision, rename, unknown_safety, unknown_order)
        )
    except PreferenceDataError as error:
        if as_json:
            echo(json.dumps({"source": source, "problems": [vars(problem) for problem in error.problems]}, indent=2))
        elif len(error.problems) > 1:
            _print_problems(error.problems)
        raise
    if as_json:
        echo(json.dumps({**asdict(report), "problems": []}, indent=2))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    values = asdict(report)
    categories = values.pop("categories")
    for name, value in values.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        shown = ", ".join(value) if isinstance(value, tuple) else shown
        table.add_row(name.replace("_", " "), Text(str(shown if shown not in ("", None) else "none")))
    Console().print(table)
    if categories:
        cells = sorted({cell for counts in categories.values() for cell in counts})
        by_category = Table("harm category", *cells, box=None, pad_edge=False)
        for name, counts in categories.items():
            by_category.add_row(Text(name), *(str(counts.get(cell, 0)) for cell in cells))
        Console().print(by_category)
    echo("No problems.")
    if set(report.cells) == {"unknown"}:
        echo(
            "No row has a safety flag for all its answers, so BFPO can use the set as a buffer only; "
            "'bfpo label' fills flags in."
        )


def _print_problems(problems: Sequence[Problem]) -> None:
    """One line for all rows with the same problem."""
    alike: dict[tuple[str | None, str, str], list[int | None]] = {}
    for problem in problems:
        alike.setdefault((problem.column, problem.what, problem.remedy), []).append(problem.row)
    table = Table("rows", "column", "what", "remedy", title=f"{len(problems)} problems", title_justify="left")
    for (column, what, remedy), rows in alike.items():
        shown = ", ".join("" if row is None else str(row) for row in rows[:_SHOWN_ROWS])
        more = f" and {len(rows) - _SHOWN_ROWS} more" if len(rows) > _SHOWN_ROWS else ""
        table.add_row(*(Text(cell) for cell in (shown + more, column or "", what, remedy)))
    Console().print(table)


@app.command("list")
def list_sets() -> None:
    """List the public data sets that have a short name."""
    from bfpo.preferences.public_sets import PUBLIC_SETS

    width = max(map(len, PUBLIC_SETS))
    for name, entry in PUBLIC_SETS.items():
        revision = f" at {entry.revision[:8]}" if entry.revision else ""
        echo(f"{name:{width}}  {entry.hub}{revision}: {entry.what}")


@app.command()
def show(
    source: Source,
    count: Annotated[int, typer.Option("-n", min=1, help="Number of rows to show.")] = 3,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Also show the tokens and their ids, with answers in color.")
    ] = False,
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer for --tokens; by default the microworld's.")] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=2, help="Largest number of tokens in prompt and answer, for --tokens; 1024 by default."),
    ] = None,
    split: Split = "train",
    revision: Revision = None,
    rename: Rename = None,
    unknown_safety: Unknown = None,
    unknown_order: UnknownOrder = None,
) -> None:
    """Print the first rows as training sees them."""
    from bfpo.preferences.loading import load_preferences

    if not tokens and (tokenizer, max_length) != (None, None):
        raise BfpoError("--tokenizer and --max-length: only work together with --tokens; add it, or leave them out")
    rows = load_preferences(source, **_options(source, split, revision, rename, unknown_safety, unknown_order))
    rows = rows.select(range(min(count, len(rows))))
    console = Console()
    if tokens:
        for line in _token_lines(rows, tokenizer or "microworld", max_length or 1024):
            console.print(line)
        return
    for row in rows:
        for name, value in dict(row).items():
            console.print(Text.assemble((f"{name}: ", "bold"), str(value)))
        console.print()


def _token_lines(rows: Any, name: str, max_length: int) -> list[Text]:
    """Counts, and one line for each answer: its tokens that are trained on in color, all others dim."""
    from bfpo.models import end_tokens, load_generation_config, load_tokenizer
    from bfpo.preferences.encoding import encode
    from bfpo.quiet import quiet_libraries

    quiet_libraries()
    loaded = load_tokenizer(name)
    try:
        defaults = load_generation_config(name)
    except BfpoError:  # a folder with nothing but a tokenizer
        defaults = None
    ends = end_tokens(defaults, loaded)
    encoded = encode(rows, loaded, max_length, ends=ends)
    counts = {key: value for key, value in vars(encoded.counts).items() if not key.startswith("first_") and value != []}
    lines = [Text(f"tokenizer: {name}", style="bold")]
    lines += [Text(f"{key.replace('_', ' ')}: {value}", style="bold") for key, value in counts.items()]
    lines.append(Text("green tokens are trained on, dim ones are only read", style="bold"))
    for row in encoded.dataset.to_list():
        for number, answer in enumerate(row["answer_ids"]):
            context = set(row["context"][number]) if row["context"] else set()
            trained = f" ({len(answer) - len(context)} of {len(answer)} tokens are trained on)" if context else ""
            line = Text(f"row {row['row']}, answer {number + 1}{trained}: ")
            styles = ["dim" if at in context else "green" for at in range(len(answer))]
            tokens = [*row["prompt_ids"], *answer]
            for token, style in zip(tokens, ["dim"] * len(row["prompt_ids"]) + styles, strict=True):
                text = loaded.convert_ids_to_tokens([token])[0]
                marked = "bold magenta" if token in (*ends, loaded.bos_token_id) and style != "dim" else style
                line.append(f"{text}", style=marked).append(f"·{token} ", style="dim")
            lines.append(line)
    return lines
