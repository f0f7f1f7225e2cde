"""``run.json``: record of a run's inputs, the origin of each value, results and run time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bfpo.config import checked, read_json
from bfpo.files import write_json
from bfpo.training.recipe import ResolvedRecipe

FILE_NAME = "run.json"
# P-value below which a run says that errors differ by category.
_UNEQUAL = 0.01


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record atomically; numbers that are not finite, which JSON doesn't have, become null."""
    write_json(folder / FILE_NAME, _finite(record), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Setting(BaseModel):
    """A setting of a run, with its origin."""

    value: Any


class _Record(BaseModel):
    """What every record of a run has, among more."""

    config: dict[str, _Setting]
    finished: bool
    data: list[dict[str, Any]]
    model: dict[str, Any]
    mix: dict[str, Any]


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in a run folder, or None.

    Raises:
        BfpoError: if there is one that ``bfpo train`` didn't write.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    what, remedy = "the record of a run", "move it away"
    record = read_json(path, dict[str, Any], what, remedy)
    checked(record, _Record, str(path), what, remedy)
    return record


def config_record(resolved: ResolvedRecipe) -> dict[str, dict[str, Any]]:
    """Every value of a recipe with its origin."""
    values = resolved.recipe.model_dump(mode="json")
    return {key: {"value": value, "origin": resolved.origins[key]} for key, value in values.items()}


def _grouping(counts: Mapping[str, int] | None) -> dict[str, int]:
    """What a line about a source says of its pairs that were grouped by prompt."""
    if counts is None:
        return {}
    return {
        "pairs grouped by prompt": counts["pairs"],
        "answers in the largest group": counts["largest"],
        "repeated answers merged": 2 * counts["pairs"] - counts["answers"],
        "answers with averaged flags": counts["averaged"],
    }


def _describe_labels(name: str, labels: Mapping[str, Any]) -> Iterator[str]:
    """Lines about what is made of judged flags and orders, and what training on them amounts to."""
    if flags := labels.get("flags"):
        reason = f" ({flags['reason']})" if flags["reason"] else ""
        unused = f", {flags['unused']:,} of people's outside the sample not used" if flags["unused"] else ""
        outside = f", {flags['outside']:,} outside [0, 1]" if flags["outside"] else ""
        counts = f"{flags['people']:,} by people, {flags['judged']:,} by judges{unused}{outside}"
        yield f"{name}: flags {flags['flags']}{reason}: {counts}"
        if flags["channel"] is None:
            what = (
                "the random sample is too small to show it"
                if flags["sample"]
                else "people labeled no random sample of judged answers"
            )
            yield f"{name}: the error of these flags is unknown, as {what}"
        else:
            effect = "".join(f", {key} {flags[key]:.4g}" for key in ("alpha_eff", "beta_eff") if key in flags)
            worth = "n_eff {value:,.0f} [{low:,.0f}, {high:,.0f}] of {n:,}".format(**flags["n_eff"])
            sample = f"{flags['sample']}: {flags['safe']:g} safe, {flags['unsafe']:g} unsafe"
            # Unbiased flags have an a of 0 but for rounding, which would print as -0.000.
            a, c = (round(flags["channel"][key], 3) + 0.0 for key in ("a", "c"))
            yield f"{name}: a {a:.3f}, c {c:.3f}{effect}, {worth} ({sample})"
        if (p := flags["category_p"]) is not None and p < _UNEQUAL:
            yield (
                f"{name}: the judges find unsafe answers of some harm categories more often than of others "
                f"(p = {p:.2g}), which only 'flags: doubly_robust' corrects; see 'bfpo judge check'"
            )
    if order := labels.get("order"):
        error = order["error"]
        shown = f"error {error['value']:.3f} [{error['low']:.3f}, {error['high']:.3f}]" if error else "error unknown"
        counts = f"{order['people']:,} by people, {order['judged']:,} by a judge"
        yield f"{name}: order {order['order']}: {counts}; {shown}"


def _changes(source: Mapping[str, Any], encoding: Mapping[str, Any]) -> dict[str, int]:
    """Numbers of a source's rows that were left out or changed, in words."""
    return {
        "rows dropped as unknown": source["dropped_unknown"],
        **source["left_out"],
        "rows filled as unknown": source["filled_unknown"],
        "duplicates kept": source["duplicates"],
        "held out for evaluation": source.get("held_out", 0),
        "columns ignored": len(source["ignored_columns"]),
        "rows whose answers have the same tokens, and give no training signal": encoding["equal_answers"],
        "answers truncated": encoding["truncated_answers"],
        "answers without an end, since they were cut when sampled": encoding["unended_answers"],
        "answers given an end token because their template adds none": encoding["added_ends"],
        "plain strings sent as user messages": encoding["templated_strings"],
        "answers of several turns": encoding["answers_with_context"],
        "rows skipped as too long": len(encoding["skipped_rows"]),
        "boundaries moved": encoding["moved_boundaries"],
        **{f"pairs {name.replace('_', ' ')}": count for name, count in source.get("ordering", {}).items()},
        **{f"{name} of balancing": source.get("balance", {}).get(name, 0) for name in ("repeats", "leftovers")},
        **{f"{name} of weighing": source.get("draws", {}).get(name, 0) for name in ("repeats", "leftovers")},
        **{
            f"prompts of {overlap['evaluation']}, allowed": overlap["same"] + overlap["similar"]
            for overlap in source.get("overlap", ())
        },
        **_grouping(source.get("grouping")),
        **source.get("unread", {}),
    }


def describe_run(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines about a run's model, sources, their mix, and rows left out or changed."""
    mix, model = record["mix"], record["model"]
    if resumed := record.get("resumed"):
        yield f"resumed from {resumed[-1]['checkpoint'] or 'the first step, as no checkpoint is complete'}"
    processes = record.get("processes", {"number": 1})
    if processes["number"] > 1:
        yield f"{processes['number']} processes; sharding: {processes['sharding']}"
    if "adapter" in model:
        note = "its adapter is trained further"
        if model["adapter"] == "merged":
            note = f"its adapter was merged into {model['adapter_of']}"
        if "saved_in" in model:
            note += f"; the merged weights, the base of the new adapter, are in {model['saved_in']}"
        yield f"model: {model['name']}; {note}"
    for source in record["data"]:
        encoding = mix["encoding"][source["name"]]
        cells = ", ".join(f"{cell} {count:,}" for cell, count in source["cells"].items())
        noted = ", ".join(f"{name} {count:,}" for name, count in _changes(source, encoding).items() if count)
        harm = ", ".join(
            f"{name} {one['answers']:,} at {one['price']:g}{'' if one['own'] else ' (default)'}"
            for name, one in source.get("harm", {}).items()
        )
        harm = f"answers with harm, and its price: {harm}" if harm else ""
        parts = [f"{encoding['rows']:,} of {source['read']:,} rows ({source['shape']})", cells, harm, noted]
        yield f"{source['name']} ({source['role']}): {'; '.join(part for part in parts if part)}"
        yield from _describe_labels(source["name"], source.get("labels", {}))
    prices = record.get("harm_prices", {}).get("prices", {})
    if unread := prices.keys() - {name for source in record["data"] for name in source.get("harm", {})}:
        yield f"harm_prices: no answer has harm of {', '.join(sorted(unread))}"
    if "eval_data" in record:
        yield f"evaluation: {record['eval_data']['used']:,} rows of {record['eval_data']['source']}"
    main, total = mix["main_groups_per_step"], mix["groups_per_step"]
    buffer = f" ({main} main, {total - main} buffer)" if total > main else ""
    yield f"every step: {total} groups{buffer}; {mix['steps_per_epoch']:,} steps per epoch"
    reference = record["reference"]
    if any(reference.values()):
        yield f"reference: {reference['reused']:,} answers from the cache, {reference['scored']:,} scored"
    yield f"layout: {record['layout']['layout']} ({record['layout']['reason']})"
