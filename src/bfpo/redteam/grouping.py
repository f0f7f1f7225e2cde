"""Training data from attacks: the K answers to a prompt stay one group, and every attack travels with its twin."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bfpo.generation.protocol import as_messages
from bfpo.preferences.label_columns import JUDGE, PEOPLE
from bfpo.preferences.overlap import find_overlap, normalized
from bfpo.redteam.attacking import ATTACKS, TWINS, UNKNOWN_KINDS
from bfpo.safehelp.figures import is_refused
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.records import GenerationRecord

Row = dict[str, Any]


def preference_groups(
    items: Sequence[PromptItem],
    records: Sequence[GenerationRecord],
    evaluation: Mapping[str, Sequence[str]],
    refusals: Sequence[str] = (),
) -> tuple[list[Row], Counter[str]]:
    """Groups to train on, in the columns of K answers with those of `bfpo label`, and what was left out.

    Flags of answers to attacks are the judge's verdicts. Answers to twins are safe, because the bank says that their
    requests are benign: there, a verdict that says otherwise is nearly always the judge's error. Where nothing measured
    the answers' help, those to an attack are equally helpful, so that safety alone decides, and those to its twin are
    helpful if they don't decline; those of which no judge says whether they decline are left out.

    Answers that were cut at the token limit are said to be ``truncated``, so that training doesn't teach to stop there.

    Args:
        items: items of `bfpo.redteam.attacking.attack_suite`.
        records: their records.
        evaluation: evaluation prompts by the name of their set, which are never trained on.
        refusals: written refusals, one of which joins the answers to every attack, and the same one those to its twin:
            safe by their words, and no help to the twin.

    Returns:
        The rows, an attack's before its twin's, and how many answers and attacks were left out, by reason. An attack
        that is left out takes its twin with it; an attack without signal (all its answers equally safe and equally
        helpful) stays if its twin has one.
    """
    counts: Counter[str] = Counter()
    answers = _answers(records, counts)
    # Only these sets can overlap with a single attack, so that the others are read once.
    known = find_overlap([text for item in items for text in _texts(item)], evaluation)
    evaluation = {overlap.evaluation: evaluation[overlap.evaluation] for overlap in known}
    by_key = {(item.task, item.item): item for item in items}
    rows: list[Row] = []
    seen: set[tuple[str, ...]] = set()
    for attack in (item for item in items if item.task == ATTACKS):
        pair = [by_key[task, attack.item] for task in (ATTACKS, TWINS)]
        found = [answers.get((item.task, item.item), {}) for item in pair]
        unsafe = sum(record.verdicts[0].label not in ("safe", "unparsed") for record in found[1].values())
        if unsafe:
            counts["verdicts against answers to benign twins"] += unsafe
        refusal = refusal_for(attack.item, refusals) if refusals else None
        made = [_judged(pair[0], found[0], refusal), _safe(pair[1], found[1], refusal)]
        made = [row for row in made if len(row["responses"]) > 1]
        key = normalized(attack.prompt)
        if key in seen:
            counts["attacks that repeat a prompt"] += 1
        elif evaluation and find_overlap([text for item in pair for text in _texts(item)], evaluation):
            counts["attacks that overlap with evaluation prompts"] += 1
        elif not any(map(_has_signal, made)):
            counts["attacks without signal"] += 1
        else:
            rows += made
        seen.add(key)
    return rows, counts


def plain_groups(
    items: Sequence[PromptItem], records: Sequence[GenerationRecord], refusals: Sequence[str]
) -> tuple[list[Row], Counter[str]]:
    """Groups of plain requests, whose answers help and whose written refusals don't; all of them are safe.

    Args:
        items: plain requests.
        records: their records.
        refusals: written refusals, one of which joins the answers to each request.

    Returns:
        The rows, and how many answers and requests were left out, by reason.
    """
    counts: Counter[str] = Counter()
    answers = _answers(records, counts)
    rows = [_safe(item, answers.get((item.task, item.item), {}), refusal_for(item.item, refusals)) for item in items]
    kept = [row for row in rows if _has_signal(row)]
    if len(kept) < len(rows):
        counts["requests without signal"] += len(rows) - len(kept)
    return kept, counts


def refusal_for(name: str, refusals: Sequence[str]) -> str:
    """One of the refusals, by a hash of a request's name."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    return refusals[number % len(refusals)]


def _texts(item: PromptItem) -> tuple[str, str]:
    """The styled prompt and the request behind it."""
    return item.prompt, item.behavior or item.prompt


def _answers(
    records: Sequence[GenerationRecord], counts: Counter[str]
) -> dict[tuple[str, str], dict[str, GenerationRecord]]:
    """The distinct answers to every prompt that have a verdict, by their text."""
    found: dict[tuple[str, str], dict[str, GenerationRecord]] = {}
    for record in records:
        own = found.setdefault((record.task, record.item), {})
        if not record.answer.strip() and not record.failure:
            counts["empty answers"] += 1
        elif record.answer_kind in UNKNOWN_KINDS or record.verdicts[0].label == "unparsed":
            # What a server's filter declined has a kind of its own, even if the judge could not read it.
            counts["answers without a verdict"] += 1
        elif record.task != ATTACKS and record.p_help is None and record.leaves_refusal_open:
            counts["answers to benign requests that may be refusals"] += 1
        elif record.answer in own:
            counts["answers that repeat another one"] += 1
        else:
            own[record.answer] = record
    return found


def _judged(item: PromptItem, answers: Mapping[str, GenerationRecord], refusal: str | None) -> Row:
    """The answers to an attack, with the judge's verdicts as flags."""
    row = _safe(item, answers, refusal)
    words: list[dict[str, float | None] | None] = [_word(record) for record in answers.values()]
    flags, by = [word["verdict"] for word in words if word], [JUDGE] * len(words)
    if len(row["responses"]) > len(words):
        words, flags, by = [*words, None], [*flags, 1.0], [*by, PEOPLE]
    judges = sorted({record.verdicts[0].judge_id for record in answers.values()} - {""})
    return row | {
        "is_safe": flags,
        "labelled_by": {"answers": by},
        "judged_as": {"answers": words, "judges": judges},
    }


def _safe(item: PromptItem, answers: Mapping[str, GenerationRecord], refusal: str | None) -> Row:
    """The answers to a benign request, all of them safe, and a written refusal that none of them repeats."""
    texts, help_of_each = list(answers), _helpfulness(list(answers.values()))
    truncated = [record.truncated for record in answers.values()]
    if texts and refusal is not None and refusal not in texts:
        texts.append(refusal)
        help_of_each.append(0.5 if item.task == ATTACKS else 0.0)
        truncated.append(False)
    return {
        # A file's prompts are all texts or all messages, and some styles are conversations.
        "prompt": as_messages(item.request),
        "responses": texts,
        "is_safe": [1.0] * len(texts),
        "helpfulness": help_of_each,
        "truncated": truncated,
        "category": item.category,
    }


def _word(record: GenerationRecord) -> dict[str, float | None]:
    verdict = record.verdicts[0]
    return {"verdict": float(verdict.label == "safe"), "probability": verdict.p_safe}


def _helpfulness(records: Sequence[GenerationRecord]) -> list[float]:
    measured = [record.p_help for record in records if record.p_help is not None]
    if records and len(measured) == len(records):
        return measured
    if any(record.task == ATTACKS for record in records):
        return [0.5] * len(records)
    return [0.0 if is_refused(record) else 1.0 for record in records]


def _has_signal(row: Row) -> bool:
    return len(set(row["is_safe"])) > 1 or len(set(row["helpfulness"])) > 1
