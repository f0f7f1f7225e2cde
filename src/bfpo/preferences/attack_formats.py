"""Converters of others' red teaming: garak's reports and JailbreakBench's artifacts.

Their labels are a program's, so they become a judge's verdicts (``labelled_by``, ``judged_as``). Neither measures help.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bfpo.preferences.label_columns import JUDGE, UNPARSED
from bfpo.preferences.reading import Row
from bfpo.preferences.schema import LeftOutError, RowError

# garak's detectors whose hit says that an answer is harmful, as their descriptions have it (NVIDIA/garak,
# garak/detectors: harmbench.py at 1cd68e0, judge.py at 01bf337, unsafe_content.py at 57e62a3, lmrc.py at 294ca7d,
# misogyny.py at 18087cb, continuation.py at 31f192c). Others look for something else: a phrase of refusal (mitigation),
# an injected string, a made-up package, ...
HARM_DETECTORS = frozenset(
    {
        "continuation.Continuation",
        *("harmbench.HarmBenchLlama2", "harmbench.HarmBenchMistral7b"),
        "judge.ModelAsJudge",
        *("lmrc.Misogyny", "lmrc.MisogynyKeywords", "lmrc.QuackMedicine"),
        "misogyny.MisogynisticContent",
        *(
            f"unsafe_content.{name}"
            for name in (
                *("LDNOOBW", "Martin_haDistilbert", "S_nlpDetox", "SlursReclaimedSlurs", "ToxicCommentModel"),
                *("OfcomOffensiveDiscriminatory", "OfcomOffensiveGeneral", "OfcomOffensiveMentalHealth"),
                *("OfcomOffensiveRaceEthnic", "OfcomOffensiveSexGender", "OfcomOffensiveSexual"),
                *("SurgeProfanityAnimalReferences", "SurgeProfanityBodilyFluids", "SurgeProfanityMentalDisability"),
                *("SurgeProfanityPhysicalAttributes", "SurgeProfanityPhysicalDisability", "SurgeProfanityPolitical"),
                *("SurgeProfanityRacialEthnic", "SurgeProfanityReligious", "SurgeProfanitySexual"),
                "SurgeProfanitySexualOrientationGender",
            )
        ),
    }
)


def garak_attempt(row: Row) -> Row:
    """An attempt of garak's report: its prompt and all of its outputs, those that passed and those that failed.

    An answer is unsafe if a detector of `HARM_DETECTORS` scored it at the threshold or above, safe if one scored it and
    none did so, and unknown otherwise. Prompts and outputs are objects with a ``text``, and texts in old versions
    (`Attempt.as_dict` in garak/attempt.py, NVIDIA/garak at 00da980). What a model answered after several turns is in
    ``conversations``, one for each output.
    """
    outputs: Any = row.get("outputs")
    if not isinstance(outputs, list):
        raise RowError("outputs", f"it is a {type(outputs).__name__}", "keep the attempt as garak wrote it")
    if not outputs:
        raise LeftOutError("attempts without an answer")
    texts = [_text(output, "outputs") for output in outputs]
    flags, left_out = _flags(row, len(outputs))
    kept = [at for at, text in enumerate(texts) if text and text.strip()]
    left_out += ["empty answers"] * (len(texts) - len(kept))
    if not kept:
        raise LeftOutError("attempts without an answer")
    return {
        "prompt": _prompt(row),
        "responses": [[{"role": "assistant", "content": texts[at]}] for at in kept],
        "helpfulness": None,
        "is_safe": [flags[at] for at in kept],
        "category": row.get("category") or row.get("intent"),
        "left_out": left_out,
    }


def jailbreak(row: Row) -> Row:
    """An attack of a JailbreakBench artifact: a prompt, its response, and whether a judge calls that ``jailbroken``."""
    if row.get("prompt") is None and row.get("response") is None:
        raise LeftOutError("requests for which no attack was submitted")
    jailbroken = row.get("jailbroken")
    if not isinstance(jailbroken, bool | None):
        raise RowError("jailbroken", f"it is a {type(jailbroken).__name__}", "write true, false or null")
    return {
        "prompt": row.get("prompt"),
        "responses": [row.get("response")],
        "helpfulness": None,
        "is_safe": [None if jailbroken is None else float(not jailbroken)],
        "category": row.get("category"),
    }


def by_prompt(rows: Iterable[tuple[int, Row]], left_out: Counter[str]) -> list[tuple[int, int, Row]]:
    """Groups of all answers to a prompt, with their flags as a judge's verdicts.

    Equal answers to a prompt are one answer, which is unsafe if it was called so once.

    Args:
        rows: numbered canonical rows without columns of labels.
        left_out: counts of what was left out, which are added to.

    Returns:
        Number of each group's first row, its number of rows, and the group.
    """
    groups: dict[str, tuple[int, int, Row, dict[str, float | None]]] = {}
    for number, row in rows:
        key = json.dumps([row["prompt"], row["category"]])
        first, count, group, answers = groups.get(key, (number, 0, row, {}))
        for answer, flag in zip(row["responses"], row["is_safe"], strict=True):
            text = json.dumps(answer)
            left_out["answers that repeat another one"] += text in answers
            known = [one for one in (answers.get(text), flag) if one is not None]
            answers[text] = min(known, default=None)
        groups[key] = first, count + 1, group, answers
    left_out += Counter()  # without counts of 0
    return [(first, count, group | _judged(answers)) for first, count, group, answers in groups.values()]


def _judged(answers: Mapping[str, float | None]) -> Row:
    flags = list(answers.values())
    words = [None if flag is None else {"verdict": flag, "probability": None} for flag in flags]
    return {
        "responses": [json.loads(answer) for answer in answers],
        "is_safe": flags,
        "labelled_by": json.dumps({"answers": [UNPARSED if flag is None else JUDGE for flag in flags]}),
        "judged_as": json.dumps({"answers": words}),
    }


def _flags(row: Row, outputs: int) -> tuple[list[float | None], list[str]]:
    """The flag of each output, and the verdicts that were left out, by reason."""
    threshold, results = row.get("eval_threshold"), row.get("detector_results") or {}
    if not isinstance(results, Mapping):
        raise RowError("detector_results", f"it is a {type(results).__name__}", "keep the attempt as garak wrote it")
    if results and not _is_score(threshold):
        raise RowError("eval_threshold", f"{str(threshold)[:40]!r} is not a number", "correct the report's first line")
    hits: list[list[bool]] = [[] for _ in range(outputs)]
    left_out: list[str] = []
    for detector, scores in results.items():
        # Detectors that read all turns of a conversation score more texts than there are outputs.
        if detector not in HARM_DETECTORS or not isinstance(scores, list) or len(scores) != outputs:
            is_other = detector not in HARM_DETECTORS
            reason = "which looks for something else than harm" if is_other else "which are not one for each answer"
            left_out += [f"verdicts of {detector}, {reason}"] * (len(scores) if isinstance(scores, list) else 1)
            continue
        for found, score in zip(hits, scores, strict=True):
            if score is None:
                continue
            if not _is_score(score):
                raise RowError("detector_results", f"{str(score)[:40]!r} is not a score", "write a number or null")
            found.append(score >= threshold)
    return [float(not any(found)) if found else None for found in hits], left_out


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _prompt(row: Row) -> list[Row]:
    """The messages before the answers, which all outputs of an attempt must have in common."""
    before: list[list[Row]] = []
    conversations = row.get("conversations")
    for conversation in conversations if isinstance(conversations, list) else []:
        turns = _turns(conversation, "conversations")
        ends = [at for at, (role, _) in enumerate(turns) if role == "assistant"]
        if ends:
            before.append(_messages(turns[: ends[-1]], "conversations"))
    if not before:
        return _messages(_turns(row.get("prompt"), "prompt"), "prompt")
    if any(messages != before[0] for messages in before):
        raise LeftOutError("attempts whose conversations differ before the last answer")
    return before[0]


def _turns(conversation: Any, column: str) -> Sequence[tuple[Any, Any]]:
    """Role and content of each turn of a prompt or conversation; a bare text or message is the user's."""
    turns: Any = conversation.get("turns") if isinstance(conversation, Mapping) else None
    if turns is None:
        return [("user", conversation)]
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise RowError(column, "its turns are not a list of objects", "keep the attempt as garak wrote it")
    return [(turn.get("role"), turn.get("content")) for turn in turns]


def _messages(turns: Sequence[tuple[Any, Any]], column: str) -> list[Row]:
    messages = [{"role": role, "content": _text(content, column)} for role, content in turns]
    if not messages or not all(message["content"] and message["content"].strip() for message in messages):
        raise LeftOutError("attempts without a prompt")
    return messages


def _text(message: Any, column: str) -> str | None:
    """The text of a message or a text; None for null."""
    if message is None or isinstance(message, str):
        return message
    if not isinstance(message, Mapping) or not isinstance(message.get("text"), str | None):
        raise RowError(column, "a message has no text", "keep the attempt as garak wrote it")
    if message.get("data_path"):
        raise LeftOutError("attempts with an image, a sound or another file")
    return message.get("text")
