"""Loading of a recipe's sources, with a record of the rows used and left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import datasets

from bfpo.errors import BfpoError, did_you_mean
from bfpo.labeling.source_labels import label_record, resolve_labels
from bfpo.objectives.bfpo import BFPO
from bfpo.objectives.registry import build_objective
from bfpo.preferences.blending import balanced, weighted
from bfpo.preferences.grouping import group_by_prompt, with_equal_pairs
from bfpo.preferences.harm import UNKNOWN_CATEGORY, with_costs, without_harm
from bfpo.preferences.loading import count_cells, inspect_preferences
from bfpo.preferences.ordering import order_by, preferred_answers
from bfpo.preferences.overlap import find_overlap, load_prompts, prompt_text
from bfpo.preferences.schema import HARM_COLUMNS, REWARD_COLUMNS
from bfpo.preferences.subset import hold_out, prompts_to_hold_out, subset
from bfpo.training.recipe import Recipe, ResolvedRecipe, SourceRecipe
from bfpo.training.training_data import Blend, TrainingSource

Prompts = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class LoadedSource:
    """One source's rows, those held out for evaluation, and the record for ``run.json``."""

    source: TrainingSource
    record: dict[str, Any]
    held_out: datasets.Dataset | None = None


@dataclass(frozen=True)
class Evaluation:
    """The rows to evaluate on, which may be of several sources, and the record for ``run.json``."""

    blend: Blend
    record: dict[str, Any]


@dataclass(frozen=True)
class LoadedBlend:
    """All sources of a recipe, their records, and the evaluation data, if any."""

    blend: Blend
    records: list[dict[str, Any]]
    evaluation: Evaluation | None


def load_source(recipe: SourceRecipe, resolved: ResolvedRecipe) -> LoadedSource:
    """Load one source, and label, subset, balance and order its rows.

    Raises:
        BfpoError: if the data has problems (the message lists all), or no row is left.
    """
    return _prepared(_selected(recipe, resolved), recipe, resolved, frozenset())


def _selected(recipe: SourceRecipe, resolved: ResolvedRecipe) -> tuple[datasets.Dataset, dict[str, Any]]:
    """The rows of a source that the recipe selects, with their labels, and the record so far."""
    rows, report = inspect_preferences(
        recipe.path,
        split=recipe.split,
        revision=recipe.revision,
        columns=recipe.columns,
        unknown_safety=recipe.unknown_safety,
        unknown_order=recipe.unknown_order,
        system_prompt=resolved.recipe.system_prompt,
    )
    seed = _seed(recipe, resolved.recipe.seed)
    record: dict[str, Any] = {"name": recipe.label, "role": recipe.role, **asdict(report)}
    rows, record["labels"] = _with_labels(rows, recipe, resolved)
    if recipe.fraction is not None or recipe.limit is not None:
        rows = subset(rows, fraction=recipe.fraction, limit=recipe.limit, seed=seed)
        record["subset_rows"] = list(rows["row"])
        _check_left(rows, recipe, f"'fraction: {recipe.fraction}'; raise it")
    return rows, record


def _prepared(
    selected: tuple[datasets.Dataset, dict[str, Any]],
    recipe: SourceRecipe,
    resolved: ResolvedRecipe,
    held_out_prompts: frozenset[str],
) -> LoadedSource:
    """A source without the prompts held out, balanced and ordered; from a main source, these become evaluation data."""
    rows, record = selected
    held_out = None
    if held_out_prompts:
        rows, held_out = hold_out(rows, held_out_prompts)
        record["held_out"] = len(held_out)
        _check_left(rows, recipe, "'eval_fraction'; lower it, or add rows with other prompts")
        held_out = _treated(held_out, recipe, resolved)[0] if recipe.role == "main" and len(held_out) else None
    if recipe.balance is not None:
        rows, counts = balanced(rows, recipe.balance, _seed(recipe, resolved.recipe.seed))
        record["balance"] = asdict(counts)
    rows, changes = _treated(rows, recipe, resolved)
    record |= changes
    _check_left(rows, recipe, f"'prefer: {recipe.prefer}'; choose another order, or add rows whose flags differ")
    record["used"] = len(rows)
    return LoadedSource(TrainingSource(rows, recipe.label, recipe.role), record, held_out)


def _check_left(rows: datasets.Dataset, recipe: SourceRecipe, cause: str) -> None:
    """Refuse a source without rows, whose remedy follows the cause."""
    if not len(rows):
        raise BfpoError(f"{recipe.label}: no row is left after {cause}")


def _with_labels(
    rows: datasets.Dataset, recipe: SourceRecipe, resolved: ResolvedRecipe
) -> tuple[datasets.Dataset, dict[str, Any]]:
    """The rows with what the recipe makes of judged flags and orders, and the record of both."""
    objective = build_objective(resolved.recipe.objective, resolved.objective_options)
    is_bfpo = isinstance(objective, BFPO)
    is_affine = objective.reads_safety and not objective.needs_probabilities and recipe.prefer == "helpful"
    reads_flags = objective.reads_safety or recipe.prefer != "helpful" or recipe.balance is not None
    is_helpful = resolved.recipe.stage == "preference" and recipe.prefer == "helpful"
    reads_order = is_helpful and not objective.needs_probabilities
    try:
        rows, flags, order = resolve_labels(
            rows, recipe.flags, recipe.order, is_affine=is_affine, reads_flags=reads_flags, reads_order=reads_order
        )
    except BfpoError as error:
        raise BfpoError(f"{recipe.label}: {error}") from error
    constants = (objective.alpha, objective.beta) if is_bfpo and is_affine else (None, None)
    return rows, label_record(flags, order, *constants)


def _treated(
    rows: datasets.Dataset, recipe: SourceRecipe, resolved: ResolvedRecipe
) -> tuple[datasets.Dataset, dict[str, Any]]:
    """The rows in the recipe's order (for SFT, the preferred answers) with the costs of harm, and records of both."""
    rows, single = _with_pairs(rows, resolved)
    record: dict[str, Any] = {"unread": _unread(rows, resolved) | {"prompts with a single answer, left out": single}}
    if resolved.recipe.stage == "sft":
        rows = preferred_answers(rows, recipe.prefer)
    elif recipe.prefer != "helpful":
        rows, counts = order_by(rows, recipe.prefer)
        record["ordering"] = asdict(counts)
    prices = resolved.harm_prices
    if prices:
        rows, counts = with_costs(rows, prices)
        record["harm"] = {
            name: {"answers": count, "price": prices.price(name), "own": name in prices.prices}
            for name, count in counts.items()
        }
    return without_harm(rows), record


def _with_pairs(rows: datasets.Dataset, resolved: ResolvedRecipe) -> tuple[datasets.Dataset, int]:
    """For pairwise objectives, the rows with answers to compare, and the number of the others.

    If no row has any, all are returned: encoding then refuses them.
    """
    objective = build_objective(resolved.recipe.objective, resolved.objective_options)
    if objective.normalizer != "groups" or "responses" not in rows.column_names:
        return rows, 0
    places = [at for at, answers in enumerate(rows["responses"]) if len(answers) > 1]
    return (rows.select(places), len(rows) - len(places)) if places else (rows, 0)


def _unread(rows: datasets.Dataset, resolved: ResolvedRecipe) -> dict[str, int]:
    """Numbers of labels in the rows that this recipe doesn't read."""
    harm = [name for names in HARM_COLUMNS.values() for name in names if name in rows.column_names]
    listed = [one if isinstance(one, list) else [one] for name in harm for one in rows[name]]
    known = sum(text is not None for texts in listed for text in texts)
    has_rewards = any(name in rows.column_names for names in REWARD_COLUMNS.values() for name in names)
    reads_rewards = build_objective(resolved.recipe.objective, resolved.objective_options).reads_reward
    return {
        "answers whose harm has no price": 0 if resolved.harm_prices else known,
        "rows whose rewards are not read": len(rows) if has_rewards and not reads_rewards else 0,
    }


def load_blend(resolved: ResolvedRecipe, suites: Prompts | None = None) -> LoadedBlend:
    """Load all sources of a recipe; ``suites`` are evaluation prompts by the name of their suite, besides its files.

    Raises:
        BfpoError: if `load_source` does, or a source contains evaluation prompts without the recipe's permission.
    """
    recipe = resolved.recipe
    selected = [_selected(source, resolved) for source in recipe.data]
    prompts = frozenset[str]()
    if recipe.eval_fraction is not None:
        main = [rows for source, (rows, _) in zip(recipe.data, selected, strict=True) if source.role == "main"]
        prompts = prompts_to_hold_out(main, recipe.eval_fraction, recipe.seed)
    loaded = [_prepared(one, source, resolved, prompts) for source, one in zip(recipe.data, selected, strict=True)]
    _check_priced(resolved, loaded)
    loaded = _weigh(recipe, loaded)
    for one in loaded:
        one.record["cells"] = count_cells(one.source.rows)
    loaded = _grouped(recipe, loaded)
    evaluation = {**(suites or {}), **{path: load_prompts(path) for path in recipe.evaluation_prompts}}
    for name in recipe.allow_overlap:
        # Without suites (when a recipe is only planned) their names are unknown.
        if suites is not None and name not in evaluation:
            raise BfpoError(
                f"allow_overlap: no evaluation is called {name!r}{did_you_mean(name, evaluation)}: "
                f"there are {', '.join(evaluation)}"
            )
    _check_overlap(recipe, loaded, evaluation)
    records = [one.record for one in loaded]
    return LoadedBlend(Blend([one.source for one in loaded]), records, _evaluation(resolved, loaded))


def _grouped(recipe: Recipe, loaded: Sequence[LoadedSource]) -> list[LoadedSource]:
    """The sources, with pairs grouped by prompt where the recipe wants that; every pair of a role counts the same."""
    grouped = list(loaded)
    for at, source in enumerate(recipe.data):
        if source.group_by_prompt:
            rows, counts = group_by_prompt(loaded[at].source.rows)
            grouped[at] = _with_rows(loaded[at], rows, grouping=asdict(counts))
    for role in ("main", "buffer"):
        places = [at for at, source in enumerate(recipe.data) if source.role == role]
        for at, rows in zip(places, with_equal_pairs([grouped[at].source.rows for at in places]), strict=True):
            grouped[at] = _with_rows(grouped[at], rows)
    return grouped


def _with_rows(loaded: LoadedSource, rows: datasets.Dataset, **record: Any) -> LoadedSource:
    """The source with other rows, and additions to its record."""
    return replace(loaded, source=replace(loaded.source, rows=rows), record=loaded.record | record)


def _evaluation(resolved: ResolvedRecipe, loaded: Sequence[LoadedSource]) -> Evaluation | None:
    """The evaluation data: a source of its own, or the rows held out."""
    recipe = resolved.recipe
    if recipe.eval_data:
        own = load_source(recipe.eval_data, resolved)
        return Evaluation(Blend([replace(own.source, role="main")]), own.record)
    held_out = [TrainingSource(one.held_out, one.source.name) for one in loaded if one.held_out is not None]
    if not held_out:
        return None
    return Evaluation(Blend(held_out), {"source": "eval_fraction", "used": sum(len(one.rows) for one in held_out)})


def _weigh(recipe: Recipe, loaded: list[LoadedSource]) -> list[LoadedSource]:
    """The sources with rows in proportion to their weights, and a record of repeats and leftovers."""
    weighed = list(loaded)
    for role in ("main", "buffer"):
        weights = {at: one.weight for at, one in enumerate(recipe.data) if one.role == role and one.weight is not None}
        seeds = [_seed(recipe.data[at], recipe.seed) for at in weights]
        drawn = weighted([loaded[at].source.rows for at in weights], list(weights.values()), seeds)
        for at, (rows, counts) in zip(weights, drawn, strict=True):
            if not len(rows):
                raise BfpoError(
                    f"{recipe.data[at].label}: its weight leaves it without a row; raise it, or drop the source"
                )
            weighed[at] = _with_rows(loaded[at], rows, draws=asdict(counts), used=len(rows))
    return weighed


def _seed(recipe: SourceRecipe, common: int) -> int:
    return common if recipe.seed is None else recipe.seed


def _check_overlap(recipe: Recipe, loaded: Sequence[LoadedSource], evaluation: Prompts) -> None:
    """Refuse evaluation prompts in the training data, or record them if the recipe allows them."""
    for one in loaded if evaluation else ():
        found = find_overlap(map(prompt_text, one.source.rows["prompt"]), evaluation)
        for overlap in found:
            if overlap.evaluation not in recipe.allow_overlap:
                raise BfpoError(
                    f"{one.source.name}: contains {overlap.same + overlap.similar} of the {overlap.prompts} evaluation "
                    f"prompts of {overlap.evaluation!r} ({overlap.same} the same, {overlap.similar} nearly; "
                    f"{overlap.example[:80]!r}): remove them from training, or write allow_overlap: "
                    f"[{overlap.evaluation}]"
                )
        one.record["overlap"] = [asdict(overlap) for overlap in found]


def _check_priced(resolved: ResolvedRecipe, loaded: Sequence[LoadedSource]) -> None:
    """Refuse prices of harm categories that no answer to train on has; of a fitted labeling's, one must be read."""
    read = {name for one in loaded for name in one.record.get("harm", ())} - {UNKNOWN_CATEGORY}
    present = f"the data has {', '.join(sorted(read))}" if read else "the data has no categories of harm"
    for name in resolved.recipe.harm_prices or {}:
        if name != "default" and name not in read:
            raise BfpoError(f"harm_prices: no answer has the category {name!r}{did_you_mean(name, read)}: {present}")
    fitted = resolved.labeling.prices if resolved.labeling else {}
    if fitted and not read & fitted.keys():
        raise BfpoError(f"labeling: it has prices of {', '.join(fitted)}, and no answer has such harm: {present}")
