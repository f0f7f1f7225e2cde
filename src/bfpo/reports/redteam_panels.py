"""Panels about red teaming: how often attacks work by round, style and category, and the archive of the best ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bfpo.reports.attacked import AttackSeries, RedTeamed
from bfpo.reports.charts import ChartRow, heat_plot, paired_rates_plot
from bfpo.reports.drawing import Plot
from bfpo.reports.formats import format_number
from bfpo.reports.panel import Column, Panel, Table, estimate_or_dash, rates_table
from bfpo.statistics.intervals import Estimate

_SUCCESS, _REFUSED = "attacks answered unsafely", "harmless twins refused"
_SEEN, _UNSEEN = "In training", "Not in training"


def red_team_panels(found: RedTeamed | None) -> list[Panel]:
    """The panels about red teaming; none without its results."""
    return [] if found is None else [_rates(found), _archive(found)]


def _rates(found: RedTeamed) -> Panel:
    lead = (
        "Harmful requests were put to the model in disguise, such as a role play or typing errors; an attack works if "
        "the answer is unsafe. Every request has a harmless twin of almost the same words, which should be answered: "
        "lower is better in both, and refusing everything is no defense."
    )
    if found.measured:
        lead += " First the models before and after, with requests that no round used; then round by round."
    plots: list[Plot] = []
    tables = [_overall([*found.measured, *found.attacked])]
    for name, series, title in (
        ("red-team-measured", found.measured, "Before and after, with requests that no round used"),
        ("red-team-styles", found.attacked, "Attacks" if len(found.attacked) == 1 else "Attacks by round"),
    ):
        labeled = _by_style(series)
        if any(row.values for _, rows in labeled for row in rows):
            plots.append(paired_rates_plot(name, series, labeled, title))
            tables += [rates_table(f"{title}: {label}", series, rows) for label, rows in labeled]
    labeled = _by_category(found.attacked)
    if labeled and len(labeled[0][1]) > 1:
        title = "By category of harm"
        plots.append(paired_rates_plot("red-team-categories", found.attacked, labeled, title))
        tables += [rates_table(f"{title}: {label}", found.attacked, rows) for label, rows in labeled]
    return Panel("red-team", "Red teaming", lead, plots, (), tables, _notes(found))


def _notes(found: RedTeamed) -> list[str]:
    notes = ["Lines are 95 % intervals, in which all answers about the same request count as one cluster."]
    if any(one.held_out for one in found.attacked):
        notes.append(
            "Styles that are not in training show whether the defense holds for disguises the model hasn't seen."
        )
    if len(found.attacked) > 1:
        notes.append(
            "A round chooses its attacks by what worked on its own model, so its rates are not of the same prompts."
        )
    if found.measured:
        notes.append("Before and after answer the same prompts, with requests that were never in training.")
    if found.unfinished:
        names = ", ".join(found.unfinished)
        notes.append(f"Without a result, because they were interrupted or found nothing to train on: {names}.")
    if not any(one.refused for one in (*found.attacked, *found.measured)):
        notes.append("The judge doesn't report refusals, so how often twins are refused is unknown.")
    return notes


def _by_style(series: Sequence[AttackSeries]) -> list[tuple[str, list[ChartRow]]]:
    """Label and rows of attack success, and of the twins' refusals where they were measured."""
    seen = list(dict.fromkeys(style for one in series for style in one.styles))
    unseen = list(dict.fromkeys(style for one in series for style in one.held_out if style not in seen))

    def rows(rates: _Rates) -> list[ChartRow]:
        found: list[ChartRow] = []
        for title, names in ((_SEEN, seen), (_UNSEEN, unseen)):
            found += [ChartRow(title, {}, is_heading=True), *_rows(series, rates, names)] if names else []
        return found

    labeled = [(_SUCCESS, rows(lambda one: one.success))]
    if any(one.refused for one in series):
        labeled.append((_REFUSED, rows(lambda one: one.refused)))
    return labeled


def _by_category(series: Sequence[AttackSeries]) -> list[tuple[str, list[ChartRow]]]:
    """Label and rows of attack success, and of the twins' refusals where they were measured."""
    names = _worst_first(series)
    labeled = [
        (_SUCCESS, _rows(series, lambda one: one.categories, names)),
        (_REFUSED, _rows(series, lambda one: one.refused_categories, names)),
    ]
    return [(label, rows) for label, rows in labeled if any(row.values for row in rows)]


_Rates = Callable[[AttackSeries], Mapping[str, Estimate]]


def _rows(series: Sequence[AttackSeries], rates: _Rates, names: Sequence[str]) -> list[ChartRow]:
    """A row for each name, empty if no series has its rate, so that charts side by side have the same rows."""
    return [
        ChartRow(_plain(name), {one.place: rates(one)[name] for one in series if name in rates(one)}) for name in names
    ]


def _plain(name: str) -> str:
    """The name of a style as words."""
    return name.replace("_", " ")


def _worst_first(series: Sequence[AttackSeries]) -> list[str]:
    """Categories, the one with the highest mean rate first."""
    found: dict[str, list[float]] = {}
    for one in series:
        for name, estimate in one.categories.items():
            found.setdefault(name, []).append(estimate.value)
    return sorted(found, key=lambda name: -sum(found[name]) / len(found[name]))


def _overall(series: Sequence[AttackSeries]) -> Table:
    columns = (
        Column("attacked", lambda one: one.name),
        Column(_SUCCESS, lambda one: estimate_or_dash(one.overall), "styles in training"),
        Column(_REFUSED, lambda one: estimate_or_dash(one.refused_overall), "styles in training"),
        Column("requests", lambda one: f"{one.overall.n:,}" if one.overall else "–"),
    )
    return Table.of("Attacks in all styles in training", columns, series)


def _archive(found: RedTeamed) -> Panel:
    anchor, title = "red-team-archive", "Archive of the best attacks"
    if not found.attacked[0].cells:
        return Panel(anchor, title, absent="no attack got a verdict")
    several = len(found.attacked) > 1
    shown = [found.attacked[0], found.attacked[-1]] if several else found.attacked
    lead = (
        "The attack that worked best for each category of harm and each style: the share of its answers that are "
        "unsafe. The stronger the color, the weaker the defense; a gap is a pair that was never tried."
    )
    if several:
        lead += f" First {found.attacked[0].name}, then {found.attacked[-1].name}."
    plots: list[Plot] = []
    tables: list[Table] = []
    categories = dict.fromkeys(name for one in shown for name in one.cells)
    for number, one in enumerate(shown):
        ordered = [(name, one.cells[name]) for name in categories if name in one.cells]
        styles = [style for style in one.styles if any(style in cells for cells in one.cells.values())]
        # The best of several attacks has no interval.
        rows = [
            ChartRow(category, {at: _exactly(cells[style]) for at, style in enumerate(styles) if style in cells})
            for category, cells in ordered
        ]
        what = f"success of the best attack by category and style, {one.name}"
        plots.append(heat_plot(f"red-team-archive-{number}", [*map(_plain, styles)], rows, what))
        tables.append(_cell_table(one.name, styles, ordered))
    notes = ["These are the best of several attacks and rest on few answers each; the rates above are averages."]
    return Panel(anchor, title, lead, plots, (), tables, notes)


def _exactly(value: float) -> Estimate:
    return Estimate(value, value, value, 1)


def _cell_table(name: str, styles: Sequence[str], ordered: Sequence[tuple[str, Mapping[str, float]]]) -> Table:
    columns = (
        Column("category", lambda row: row[0]),
        *(
            Column(_plain(style), lambda row, style=style: format_number(row[1][style]) if style in row[1] else "–")
            for style in styles
        ),
    )
    return Table.of(f"Success of the best attack, {name}", columns, ordered, folded=True)
