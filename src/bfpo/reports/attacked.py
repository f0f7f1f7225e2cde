"""Results of red teaming for the page: folders of `bfpo redteam`, of one run or of several rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bfpo.config import CLOSED, read_json
from bfpo.errors import BfpoError
from bfpo.redteam.running import SUMMARY, Attacked
from bfpo.redteam.settings import RedTeam
from bfpo.reports.drawing import COLORS, MARKERS
from bfpo.safehelp.figures import ANSWER_FIGURES, items_of
from bfpo.safehelp.records import Evaluation, read_header
from bfpo.statistics.intervals import Estimate

# Evaluations of the first and the last model, beside the rounds.
MEASURED = ("before", "after")


@dataclass(frozen=True)
class _Summary(Attacked):
    """The file of a result."""

    __pydantic_config__ = CLOSED

    settings: RedTeam
    groups_sha256: str
    attacker: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class AttackSeries:
    """Rates of one model under attack, which have one color on the page.

    Attributes:
        name: name of the run, the round or the measurement.
        place: its position among those that are drawn together, from 0.
        styles: styles that training sees.
        held_out: styles that it never sees.
        success: share of unsafe answers to attacks, by style.
        refused: share of their benign twins refused, by style; empty if the judge doesn't report refusals.
        categories: share of unsafe answers, by category of harm, over the styles that training sees.
        refused_categories: share of the twins refused, likewise.
        overall: share of unsafe answers over all styles that training sees.
        refused_overall: share of the twins refused, likewise.
        cells: success of the best attack by category and style.
    """

    name: str
    place: int
    styles: Sequence[str]
    held_out: Sequence[str]
    success: Mapping[str, Estimate]
    refused: Mapping[str, Estimate]
    categories: Mapping[str, Estimate]
    refused_categories: Mapping[str, Estimate]
    overall: Estimate | None
    refused_overall: Estimate | None
    cells: Mapping[str, Mapping[str, float]]

    @property
    def color(self) -> str:
        """Its color in plots."""
        return COLORS[self.place % len(COLORS)]

    @property
    def marker(self) -> str:
        """Its marker in plots."""
        return MARKERS[self.place % len(MARKERS)]


@dataclass(frozen=True)
class RedTeamed:
    """What red teaming found, for a page.

    Attributes:
        attacked: runs or rounds of attacks, in order.
        measured: the first and the last model under attacks with requests that no round tried; empty without rounds.
        unfinished: rounds and measurements without a result.
    """

    attacked: Sequence[AttackSeries]
    measured: Sequence[AttackSeries]
    unfinished: Sequence[str] = ()


def load_red_teaming(folders: Sequence[Path]) -> RedTeamed | None:
    """Read the results of red teaming; None without a folder.

    A folder is of one run, or of several rounds (``round-0``, ...), perhaps with ``before`` and ``after``.

    Raises:
        BfpoError: if a folder holds no result, or one that can't be read.
    """
    attacked: list[AttackSeries] = []
    measured: list[AttackSeries] = []
    for folder in folders:
        runs = _runs(folder)
        several = len(folders) > 1
        for run in runs:
            name = run.name if run == folder or not several else f"{folder.name} {run.name}"
            attacked.append(_series(run, name, len(attacked)))
        for place in measured_folders([folder]) if runs != [folder] else ():
            title = f"{folder.name} {place.name}" if several else place.name
            measured.append(_measured(place, title, len(measured), attacked[-1]))
    rounds = [path for folder in folders for path in sorted(folder.glob("round-*"))]
    unfinished = [path for path in rounds if not (path / SUMMARY).exists()]
    unfinished += [path for path, is_finished in _measurements(folders) if not is_finished]
    return RedTeamed(attacked, measured, [*map(str, unfinished)]) if folders else None


def measured_folders(folders: Sequence[Path]) -> list[Path]:
    """The finished evaluations before and after the rounds in these folders."""
    return [path for path, is_finished in _measurements(folders) if is_finished]


def _measurements(folders: Sequence[Path]) -> list[tuple[Path, bool]]:
    """The evaluations before and after the rounds in these folders, and whether each is finished."""
    places = [folder / name for folder in folders for name in MEASURED]
    return [(path, header.finished) for path in places if (header := read_header(path))]


def _runs(folder: Path) -> list[Path]:
    """The folder itself, or those of its rounds.

    Raises:
        BfpoError: if there is neither.
    """
    if (folder / SUMMARY).exists():
        return [folder]
    found = [path.parent for path in folder.glob(f"round-*/{SUMMARY}")]
    if not found:
        raise BfpoError(
            f"{folder}: there is no {SUMMARY}, nor one in a folder round-0; name a folder that 'bfpo redteam' finished"
        )
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _series(folder: Path, name: str, place: int) -> AttackSeries:
    path = folder / SUMMARY
    found = read_json(path, _Summary, "a result of red teaming", "run 'bfpo redteam' again")
    unsafe, refused, settings = found.success, found.over_refusal, found.settings
    return AttackSeries(
        name, place, settings.styles, settings.held_out, _named(unsafe, "style "), _named(refused, "style "),
        _named(unsafe, "category "), _named(refused, "category "), unsafe.get("all"), refused.get("all"), found.cells,
    )  # fmt: skip


def _named(rates: Mapping[str, Estimate], prefix: str) -> dict[str, Estimate]:
    """The rates of the styles or of the categories, by name."""
    return {key.removeprefix(prefix): rate for key, rate in rates.items() if key.startswith(prefix)}


def _measured(folder: Path, name: str, place: int, last: AttackSeries) -> AttackSeries:
    """Rates of an evaluation of attacks, in the styles of the rounds."""
    records = Evaluation.load(folder).generations

    def rate(figure: str, styles: Sequence[str]) -> Estimate | None:
        return items_of([one for one in records if one.attack in styles], ANSWER_FIGURES[figure]).estimate()

    def by_style(figure: str) -> dict[str, Estimate]:
        return {style: found for style in (*last.styles, *last.held_out) if (found := rate(figure, [style]))}

    unsafe, refused = "attack_success", "over_refusal"
    return AttackSeries(
        name, place, last.styles, last.held_out, by_style(unsafe), by_style(refused), {}, {},
        rate(unsafe, last.styles), rate(refused, last.styles), {},
    )  # fmt: skip
