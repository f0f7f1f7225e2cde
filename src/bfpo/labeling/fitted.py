"""Labeling functions fitted to a file of overall judgments, and the file format that recipes read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bfpo.config import CLOSED, read_json
from bfpo.errors import BfpoError, did_you_mean
from bfpo.files import check_replaceable, write_json
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.objectives.preference_fit import PreferenceFit, fit_preference
from bfpo.objectives.price_fit import ENOUGH_CATEGORIES, SPREAD_SCALE, fit_prices
from bfpo.preferences.harm import HarmPrices, harm_levels, harm_text, only_category
from bfpo.preferences.reading import Row, read_rows
from bfpo.preferences.schema import PreferenceDataError, Problem, RowError

COLUMNS = ("better_is_safe", "worse_is_safe", "overall_prefers_better")
HARM = ("better_harm", "worse_harm")
FORMAT = 1


@dataclass(frozen=True)
class FittedLabeling:
    """A fitted labeling function for recipes.

    Attributes:
        preference: the labeling function; with prices, its b3 is the price of other categories.
        prices: price of each harm category; empty if none were fitted.
        record: source, intervals and tests of the fit.
    """

    preference: GlobalPreference
    prices: Mapping[str, float] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The labeling as a JSON object."""
        return {
            "format": FORMAT,
            **asdict(self.preference),
            "prices": dict(self.prices),
            "record": dict(self.record),
        }

    def save(self, path: Path) -> None:
        """Write the labeling as JSON.

        Raises:
            BfpoError: if the file exists and is not a labeling.
        """
        check_replaceable(path, load_labeling, "a labeling")
        write_json(path, self.as_json(), ensure_ascii=False)


@dataclass(frozen=True)
class _File:
    """The file of a labeling."""

    __pydantic_config__ = CLOSED

    format: Literal[1]
    b1: float
    alpha: float
    prices: Mapping[str, float] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


def load_labeling(path: Path) -> FittedLabeling:
    """Load a file that `FittedLabeling.save` wrote.

    Raises:
        BfpoError: if the file can't be read, has an unknown key, or a value is out of range.
    """
    remedy = "make it with 'bfpo label --fit-preference'"
    found = read_json(path, _File, "a labeling", remedy)
    try:
        preference = GlobalPreference(found.b1, found.alpha)
        HarmPrices(preference.b3, found.prices)  # refuses a price that is out of range
    except BfpoError as error:
        raise BfpoError(f"{path}: {error}; {remedy}") from error
    return FittedLabeling(preference, found.prices, found.record)


def fit_file(source: str, *, order_error: float = 0.0) -> tuple[FittedLabeling, PreferenceFit]:
    """Fit the labeling function to a file of overall judgments, with prices by harm category if the file has several.

    Args:
        source: a file with the columns better_is_safe, worse_is_safe, overall_prefers_better (flags or probabilities)
            and optionally better_harm and worse_harm (the levels of each answer's harm by category) or category (that
            of the harm of both). Rows whose overall_prefers_better is null are unanswered and left out.
        order_error: share of pairs in which the answer called more helpful is not.

    Raises:
        PreferenceDataError: with every wrong row.
        BfpoError: if the judgments can't determine the constants.
    """
    everything = read_rows(source, "train", None)
    present = dict.fromkeys(name for _, row in everything for name in row)
    rows = [(number, row) for number, row in everything if row.get(COLUMNS[2]) is not None]
    columns = _columns(source, rows, present)
    fit = fit_preference(*columns, order_error=order_error)
    record: dict[str, Any] = {
        "source": source,
        "sha256": hashlib.sha256(json.dumps(columns).encode()).hexdigest(),
        "pairs": len(rows),
        "unanswered": len(everything) - len(rows),
        "order_error": order_error,
        "n_per_cell": fit.n_per_cell,
        "warnings": fit.warnings,
    }
    constants: dict[str, Any] = {
        "temperature": fit.temperature,
        "covariance_of_b3_alpha_temperature": fit.covariance.tolist(),
        "b1_interval": list(fit.b1_interval),
        "b3_interval": list(fit.b3_interval),
        "refusal_threshold": asdict(fit.refusal_threshold),
        "likelihood_ratio": fit.likelihood_ratio,
        "p_value": fit.p_value,
        "lack_of_fit": fit.lack_of_fit,
        "lack_of_fit_p": fit.lack_of_fit_p,
    }
    if not {"category", *HARM} & present.keys():
        return FittedLabeling(fit.preference, record=record | constants), fit
    better, worse, preferred = columns
    harms = _harms(source, rows)
    names = {name for side in harms for harm in side for name in harm}
    if len(names) < 2:
        what = f"all harm is of the category {min(names)!r}" if names else "no harm has a category"
        record["warnings"] = [*fit.warnings, f"{what}: one price is fitted for all harm, whatever its level"]
        return FittedLabeling(fit.preference, record=record | constants), fit
    by_category = fit_prices(better, worse, preferred, *harms, order_error=order_error, one_price=fit)
    # With prices, b1 and alpha of the labeling are theirs; these intervals and tests are those of one price for all.
    record |= {"prices": asdict(by_category), "one_price": asdict(fit.preference) | constants}
    unknown = [not row.get("category") and all(row.get(name) is None for name in HARM) for _, row in rows]
    record["without_category"] = sum(unknown)
    if len(by_category.prices) < ENOUGH_CATEGORIES:
        few = (
            f"{len(by_category.prices)} categories say little about how much prices differ: they are shrunk with a "
            f"prior of their spread, of scale {SPREAD_SCALE}"
        )
        record["warnings"] = [*fit.warnings, few]
    return FittedLabeling(by_category.preference, by_category.prices, record), fit


def _columns(source: str, rows: Sequence[tuple[int, Row]], present: Iterable[str]) -> list[list[float]]:
    """The three columns of the fit."""
    problems = [
        Problem(None, name, f"it is missing{did_you_mean(name, present)}", f"the columns are {', '.join(COLUMNS)}")
        for name in COLUMNS
        if name not in present
    ]
    remedy = "write true, false, or a number in [0, 1]"
    problems = problems or [
        Problem(number, name, f"{row.get(name)!r} is not a flag or probability", remedy)
        for number, row in rows
        for name in COLUMNS
        if not (isinstance(row.get(name), bool | int | float) and 0 <= row[name] <= 1)
    ]
    if problems:
        raise PreferenceDataError(source, problems, is_set=False)
    return [[float(row[name]) for _, row in rows] for name in COLUMNS]


def _harms(source: str, rows: Sequence[tuple[int, Row]]) -> list[list[dict[str, float]]]:
    """The levels of harm of the more and of the less helpful answers, if they are unsafe; empty where unknown."""
    found: list[list[dict[str, float]]] = []
    problems: list[Problem] = []
    for column in HARM:
        found.append([])
        for number, row in rows:
            category = only_category(row.get("category"))
            try:
                levels = harm_levels(harm_text(row.get(column), column))
            except RowError as error:
                problems.append(error.at(number))
                continue
            found[-1].append(({category: 1.0} if category else {}) if levels is None else levels)
    if problems:
        raise PreferenceDataError(source, problems, is_set=False)
    return found
