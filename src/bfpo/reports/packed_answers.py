"""The answers in the page: deflated JSON in base64, which needs no escapes in HTML."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

from bfpo.judges.verdict import LABELS, REFUSALS
from bfpo.reports.report import ReportModel
from bfpo.safehelp.answer_kinds import ANSWER_KINDS
from bfpo.safehelp.records import KINDS, GenerationRecord


def answers_of(models: Sequence[ReportModel]) -> dict[str, Any]:
    """All answers by prompt; names that repeat are stored once and referred to by index (-1 for none).

    Runs may give different prompts the same item name; such prompts are items of their own.

    ``items`` are ``[task, item, kind, category, attack, prompt, answers]``; ``answers`` has a list of samples for each
    model, ``[answer, answer kind, tokens, truncated, p_help, detail, verdicts]`` and, if any, the thinking and the
    verdict of the judge of refusals, ``[judge, refusal, raw]``. A missing answer is replaced by the reason. A verdict
    is ``[label, p_safe, refusal, categories, raw]``; ``judges`` has the names of its judges for each model.
    """
    tasks: dict[str, int] = {}
    categories: dict[str, int] = {}
    attacks: dict[str, int] = {}
    judges: list[list[str]] = [[] for _ in models]
    items: dict[tuple[str, str, str], list[Any]] = {}
    for model in models:
        for record in model.evaluation.generations:
            key = (record.task, record.item, record.prompt)
            if key not in items:
                items[key] = [
                    _number(tasks, record.task), record.item, KINDS.index(record.kind),
                    _number(categories, record.category), _number(attacks, record.attack), record.prompt,
                    [[] for _ in models],
                ]  # fmt: skip
            items[key][6][model.number].append(_sample(record))
            if len(record.verdicts) > len(judges[model.number]):
                judges[model.number] = [v.judge_id or f"judge {at}" for at, v in enumerate(record.verdicts, 1)]
    return {
        "models": [model.name for model in models],
        "tasks": list(tasks),
        "categories": list(categories),
        "attacks": list(attacks),
        "judges": judges,
        "kinds": KINDS,
        "answerKinds": list(ANSWER_KINDS),
        "safeKinds": [kind for kind, info in ANSWER_KINDS.items() if info.is_safe],
        "labels": LABELS,
        "refusals": REFUSALS,
        "items": list(items.values()),
    }


def _number(numbers: dict[str, int], word: str | None) -> int:
    """The number of a word, in order of first occurrence."""
    return -1 if word is None else numbers.setdefault(word, len(numbers))


def _sample(record: GenerationRecord) -> list[Any]:
    sample = [
        record.answer or _words(record),
        list(ANSWER_KINDS).index(record.answer_kind),
        record.tokens,
        int(record.truncated),
        _rounded(record.p_help),
        record.detail,
        [
            [LABELS.index(v.label), _rounded(v.p_safe), REFUSALS.index(v.refusal), list(v.categories), v.raw]
            for v in record.verdicts
        ],
    ]
    if (verdict := record.refusal_verdict) is not None:
        return [*sample, record.thinking, [verdict.judge_id, REFUSALS.index(verdict.refusal), verdict.raw]]
    return [*sample, record.thinking] if record.thinking else sample


def _words(record: GenerationRecord) -> str:
    return f"[{record.refusal or record.failure}]" if record.refusal or record.failure else ""


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def packed(value: Any) -> str:
    """A value as JSON, deflated (in zlib's format, which browsers call "deflate"), in base64."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate, which is legal in JSON, has no UTF-8 encoding, but its escape does.
    raw = text.encode("utf-8", errors="backslashreplace")
    return base64.b64encode(zlib.compress(raw, 9)).decode("ascii")
