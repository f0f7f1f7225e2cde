"""Verdicts as plain records, for files and caches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, get_args

from bfpo.judges.verdict import Label, Refusal, Verdict

LABELS: tuple[str, ...] = get_args(Label)
REFUSALS: tuple[str, ...] = get_args(Refusal)


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON holds it."""
    return asdict(verdict) | {"categories": list(verdict.categories)}


def verdict_problems(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What is wrong with a record: (column, what, remedy) of everything."""
    label, p_safe = record.get("label"), record.get("p_safe")
    if label not in LABELS:
        yield "label", f"{label!r} is no label", f"write one of {', '.join(LABELS)}"
    elif label == "unparsed" and p_safe is not None:
        yield "p_safe", f"it is {p_safe!r} although the verdict is unparsed", "write null"
    elif label != "unparsed" and not _is_probability(p_safe):
        yield "p_safe", f"{p_safe!r} is no probability", "write a number in [0, 1]"
    if record.get("refusal", "unknown") not in REFUSALS:
        yield "refusal", f"{record['refusal']!r} is no refusal", f"write one of {', '.join(REFUSALS)}"
    categories = record.get("categories", ())
    if not (isinstance(categories, list | tuple) and all(isinstance(name, str) for name in categories)):
        yield "categories", f"{categories!r} is no list of names", "write a list of strings, or leave it out"
    if record.get("mass") is not None and not _is_probability(record["mass"]):
        yield "mass", f"{record['mass']!r} is no share", "write a number in [0, 1], or null"


def verdict_from(record: Mapping[str, Any], judge_id: str = "", template_digest: str = "") -> Verdict:
    """The verdict of a record that has no problems; signed as told where it isn't signed itself."""
    return Verdict(
        label=record["label"],
        p_safe=None if record["p_safe"] is None else float(record["p_safe"]),
        refusal=record.get("refusal", "unknown"),
        categories=tuple(record.get("categories") or ()),
        raw=str(record.get("raw") or ""),
        mass=record.get("mass"),
        judge_id=record.get("judge_id") or judge_id,
        template_digest=record.get("template_digest") or template_digest,
    )


def _is_probability(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value <= 1
