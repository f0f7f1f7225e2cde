"""Converters of groups: K scored answers to a prompt, and single answers for supervised fine-tuning."""

from __future__ import annotations

from typing import Any

from bfpo.preferences.harm import harm_text, marked_categories
from bfpo.preferences.messages import messages_of, text_of, with_role
from bfpo.preferences.prompts import (
    PROMPT_COLUMNS,
    check_repeats,
    is_blank,
    needs_messages,
    prompt_of,
    with_context,
)
from bfpo.preferences.reading import Row
from bfpo.preferences.schema import LeftOutError, RowError


def k_answers(row: Row) -> Row:
    """``responses`` with ``helpfulness``, ``is_safe`` and ``harm`` lists."""
    responses = row.get("responses")
    if not isinstance(responses, list) or not responses:
        raise RowError("responses", "it is not a list of answers", "write a list with at least one answer")
    for column in ("helpfulness", "is_safe", "harm"):
        values = row.get(column)
        if values is not None and (not isinstance(values, list) or len(values) != len(responses)):
            what = f"it is not a list of {len(responses)} values, one for each answer"
            raise RowError(column, what, "give every answer a value")
    made = _group(row, responses, row.get("helpfulness"), row.get("is_safe")) | {"category": row.get("category")}
    if row.get("harm") is None:
        return made
    harm = [harm_text(levels, "harm") for levels in row["harm"]]
    defined = [None if text is None else float(text == "{}") for text in harm]
    given = row.get("is_safe") or defined
    flags = [own if flag is None else flag for flag, own in zip(given, defined, strict=True)]
    return made | {"harm": harm, "is_safe": flags}


def ultrafeedback(row: Row) -> Row:
    """Answers ordered by ``overall_score``, as in UltraFeedback-binarized.

    Its ``create_dataset.py`` (HuggingFaceH4/ultrafeedback_binarized, commit 6221885) sorts ``completions`` by that
    field, at a revision of openbmb/UltraFeedback that corrects scores of 10 that meant 1.
    """
    completions = row.get("completions")
    if not isinstance(completions, list) or not all(isinstance(one, dict) for one in completions) or not completions:
        remedy = "write objects with 'response' and 'overall_score'"
        raise RowError("completions", "it is not a list of answers", remedy)
    for field in ("response", "overall_score"):
        if any(one.get(field) is None for one in completions):
            remedy = f"give every answer its {field!r}, or remove it"
            raise RowError("completions", f"an answer has no {field!r}", remedy)
    kept = [one for one in completions if not is_blank(one["response"])]
    if not kept:
        raise LeftOutError("prompts without an answer")
    made = _group(row, [one["response"] for one in kept], [one["overall_score"] for one in kept])
    return made | {"left_out": ["empty answers"] * (len(completions) - len(kept))}


def distilabel(row: Row) -> Row:
    """``generations`` and ``ratings``, as a preference task of distilabel writes them."""
    answers, ratings = row.get("generations"), row.get("ratings")
    if not isinstance(answers, list) or not isinstance(ratings, list) or len(answers) != len(ratings) or not answers:
        raise RowError("ratings", "it is not a list with one rating for each generation", "rate every generation")
    return _group(row, answers, ratings)


def completion(row: Row) -> Row:
    """``prompt`` and ``completion``."""
    return _group(row, [row.get("completion")])


def response(row: Row) -> Row:
    """A question and its ``output`` (Alpaca) or ``response`` (ms-swift, BeaverTails)."""
    answer = next((row[name] for name in ("output", "response") if row.get(name) is not None), None)
    return _group(row, [answer], is_safe=[row.get("is_safe")]) | {"category": marked_categories(row.get("category"))}


def conversation(row: Row) -> Row:
    """``messages`` (or ``conversations``, ``conversation``), of which the last is the answer to train on."""
    names = ("messages", "conversations", "conversation")
    column = next((name for name in names if row.get(name) is not None), None)
    if column is None:
        raise RowError("messages", "it is missing", "write the turns of a conversation, or remove the row")
    messages = messages_of(row[column], column)
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise RowError(column, "it does not end with an assistant's turn", "end it with the answer to train on")
    others = {name: row[name] for name in PROMPT_COLUMNS if name != column and not is_blank(row.get(name))}
    return _made(row, messages[:-1], others, [messages[-1:]])


def _group(row: Row, answers: list[Any], scores: Any = None, is_safe: Any = None) -> Row:
    return _made(row, *prompt_of(row), answers, scores, is_safe)


def _made(row: Row, prompt: Any, others: Row, answers: list[Any], scores: Any = None, is_safe: Any = None) -> Row:
    answers = [text_of(answer, "responses") for answer in answers]
    if any(isinstance(text, list) for text in (prompt, *answers)) or needs_messages(row):
        answers = [with_role(answer, "assistant") for answer in answers]
        prompt = with_role(prompt, "user")
        if isinstance(prompt, list):
            prompt = with_context(prompt, row)
    check_repeats(others, [prompt, *answers])
    return {
        "prompt": prompt,
        "responses": answers,
        "helpfulness": scores,
        "is_safe": is_safe or [None] * len(answers),
    }
