"""From a recipe's sources to rows, with a record of what was loaded and left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bfpo.errors import BfpoError
from bfpo.preferences.loading import inspect_preferences
from bfpo.preferences.ordering import order_by, preferred_answers
from bfpo.preferences.subset import subset
from bfpo.training.data import Blend, Source
from bfpo.training.recipe import Recipe, SourceRecipe


@dataclass(frozen=True)
class LoadedSource:
    """One source's rows and the record of them that goes into ``run.json``."""

    source: Source
    record: dict[str, Any]


def load_source(recipe: SourceRecipe, stage: str, seed: int) -> LoadedSource:
    """Load one source and make of it what its recipe says.

    Raises:
        BfpoError: if the data has problems (all are listed), or nothing is left of it.
    """
    rows, report = inspect_preferences(
        recipe.path,
        split=recipe.split,
        revision=recipe.revision,
        columns=recipe.columns,
        unknown_safety=recipe.unknown_safety,
    )
    record: dict[str, Any] = {"name": recipe.label, "role": recipe.role, **report.record()}
    if recipe.fraction is not None or recipe.limit is not None:
        rows = subset(rows, fraction=recipe.fraction, limit=recipe.limit, seed=seed)
        record["subset_rows"] = list(rows["row"])
    if stage == "sft":
        rows = preferred_answers(rows, recipe.prefer)
    elif recipe.prefer != "helpful":
        rows, counts = order_by(rows, recipe.prefer)
        record["ordering"] = asdict(counts)
    if not len(rows):
        raise BfpoError(f"{recipe.label}: no row is left after 'prefer: {recipe.prefer}'")
    record["used"] = len(rows)
    return LoadedSource(Source(rows, recipe.label, recipe.role), record)


def load_blend(recipe: Recipe) -> tuple[Blend, list[dict[str, Any]]]:
    """All sources of a recipe, with their records."""
    loaded = [load_source(source, recipe.stage, recipe.seed) for source in recipe.data]
    return Blend([one.source for one in loaded]), [one.record for one in loaded]
