"""The answers in the page: deflated JSON in base64, which needs no escapes in HTML."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

from bfpo.reports.report import ReportModel
from bfpo.safehelp.answer_kinds import ANSWER_KINDS
from bfpo.safehelp.records import KINDS, GenerationRecord

LABELS = ("safe", "unsafe", "controversial", "unparsed")
REFUSALS = ("yes", "no", "unknown")


def answers_of(models: Sequence[ReportModel]) -> dict[str, Any]:
    """All answers by prompt; names that repeat are stored once and referred to by index (-1 for none).

    ``items`` are ``[task, item, kind, category, attack, prompt, answers]``; ``answers`` has a list of samples for each
    model, ``[answer, answer kind, tokens, truncated, p_help, detail, verdicts]``; a verdict is
    ``[label, p_safe, refusal, categories, raw]``.
    """
    tasks, categories, attacks = _Words(), _Words(), _Words()
    judges: list[str] = []
    items: dict[tuple[str, str], list[Any]] = {}
    for model in models:
        for record in model.evaluation.generations:
            key = (record.task, record.item)
            if key not in items:
                items[key] = [
                    tasks.number(record.task), record.item, KINDS.index(record.kind),
                    categories.number(record.category), attacks.number(record.attack), record.prompt,
                    [[] for _ in models],
                ]  # fmt: skip
            items[key][6][model.number].append(_sample(record))
            if len(record.verdicts) > len(judges):
                judges = [v.judge_id or f"judge {place}" for place, v in enumerate(record.verdicts, 1)]
    return {
        "models": [model.name for model in models],
        "tasks": tasks.words,
        "categories": categories.words,
        "attacks": attacks.words,
        "judges": judges,
        "kinds": KINDS,
        "answerKinds": list(ANSWER_KINDS),
        "safeKinds": [kind for kind, info in ANSWER_KINDS.items() if info.is_safe],
        "labels": LABELS,
        "refusals": REFUSALS,
        "items": list(items.values()),
    }


class _Words:
    """Words, numbered in order of first occurrence."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, word: str | None) -> int:
        return -1 if word is None else self._numbers.setdefault(word, len(self._numbers))

    @property
    def words(self) -> list[str]:
        return list(self._numbers)


def _sample(record: GenerationRecord) -> list[Any]:
    return [
        record.answer,
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


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def packed(value: Any) -> str:
    """A value as JSON, deflated (in zlib's format, which browsers call "deflate"), in base64."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate, which is legal in JSON, has no UTF-8 encoding, but its escape does.
    raw = text.encode("utf-8", errors="backslashreplace")
    return base64.b64encode(zlib.compress(raw, 9)).decode("ascii")
