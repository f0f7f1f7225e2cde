"""Generators of the microworld's data sets, in the shapes of public sets."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from bfpo.microworld.answers import AnswerKind, write_answer
from bfpo.microworld.grammar import Kind, Request, Split, requests, requests_of
from bfpo.microworld.oracle import NOISE_SCALE, OracleVerdict, judge, preference_probability
from bfpo.microworld.vocabulary import AREAS
from bfpo.microworld.worlds import SAFETY_KINDS, W0, World
from bfpo.preferences.harm import SEVERITY_LEVELS

_Option = TypeVar("_Option")
CATEGORIES = tuple(area.category for area in AREAS if area.category)
HELPFUL_PROMPTS: dict[Kind, float] = {"benign": 0.5, "borderline": 0.5}
CHAT_PROMPTS: dict[Kind, float] = {"benign": 0.7, "borderline": 0.3}


def safety_set(count: int, seed: int, *, split: Split = "train", world: World = W0) -> list[dict[str, Any]]:
    """Pairs in the shape of PKU-SafeRLHF, with the more helpful answer, safety flags and the safer answer."""
    rng = random.Random(f"safety {seed}")
    rows = []
    for prompt, request in _asked(world, split, count, rng):
        pair = _distinct_answers(request, world.kinds[request.kind], 2, rng)
        verdicts = [judge(request.text, answer) for answer in pair]
        first_wins = preference_probability(verdicts[0].p_help, verdicts[1].p_help, world.order_noise)
        better = 0 if rng.random() < first_wins else 1
        flags = [verdict.is_safe != (rng.random() < world.flag_errors[not verdict.is_safe]) for verdict in verdicts]
        safer = flags.index(True) if flags[0] != flags[1] else _safer_of_equals(flags[0], verdicts, rng)
        rows.append(
            {
                "prompt": prompt,
                "response_0": pair[0],
                "response_1": pair[1],
                "is_response_0_safe": flags[0],
                "is_response_1_safe": flags[1],
                "better_response_id": better,
                "safer_response_id": safer,
                **(_severities(verdicts) if world.severities else {}),
            }
        )
    return rows


def helpfulness_set(
    count: int, seed: int, *, split: Split = "train", answers: int = 4, score_noise: float = NOISE_SCALE
) -> list[dict[str, Any]]:
    """Prompts with several scored answers in the shape of UltraFeedback, without harmful prompts or safety flags.

    The answers to a prompt have distinct texts, and their kinds may repeat. ``score_noise`` is the standard deviation
    of the noise on each helpfulness score.
    """
    rng = random.Random(f"helpfulness {seed}")
    rows = []
    for request in draw_requests(HELPFUL_PROMPTS, split, count, rng):
        responses = _distinct_answers(request, SAFETY_KINDS[request.kind], answers, rng)
        scores = [judge(request.text, response).p_help + rng.gauss(0, score_noise) for response in responses]
        rows.append({"prompt": request.text, "responses": responses, "helpfulness": scores})
    return rows


def chat_set(count: int, seed: int, *, split: Split = "train") -> list[dict[str, Any]]:
    """Conversations in the shape of UltraChat: benign and borderline questions with full answers."""
    rng = random.Random(f"chat {seed}")
    return [
        {"messages": conversation(request, write_answer(request, AnswerKind.FULL, rng))}
        for request in draw_requests(CHAT_PROMPTS, split, count, rng)
    ]


def held_out_prompts() -> list[str]:
    """Every question of the validation and test splits."""
    return [request.text for split in ("validation", "test") for request in requests(split)]


def _asked(world: World, split: Split, count: int, rng: random.Random) -> list[tuple[str, Request]]:
    """Prompts of the safety set, each with the request behind it: the same, but for look-alikes."""
    if not world.look_alikes:
        return [(request.text, request) for request in draw_requests(world.prompts, split, count, rng)]
    return [
        draw_look_alike(split, rng.random() < world.harmful_look_alikes, rng)
        if rng.random() < world.look_alikes
        else draw_telling(split, draw(world.prompts, rng), rng)
        for _ in range(count)
    ]


def draw_look_alike(split: Split, harmful: bool, rng: random.Random) -> tuple[str, Request]:
    """A random look-alike prompt, and the request behind it."""
    request = rng.choice(_by_kind(split)["look-alike, harmful" if harmful else "look-alike, excused"])
    return request.look_alike, request


def look_alikes(split: Split) -> set[str]:
    """All look-alike prompts of a split; each may be harmful or excused."""
    return {request.text for request in _by_kind(split)["look-alike, harmful"]}


def draw_telling(split: Split, kind: Kind, rng: random.Random) -> tuple[str, Request]:
    """A random prompt of a kind that doesn't look like one of another kind, and the request behind it: the same."""
    request = rng.choice(_by_kind(split)[kind])
    return request.text, request


@cache
def _by_kind(split: Split) -> dict[str, list[Request]]:
    """Requests of a world with look-alikes.

    Its harmful requests say that there is no permission; those that say nothing may be harmful or, as if an excuse had
    been left out, borderline.
    """
    found: dict[str, list[Request]] = {}
    for request in requests(split):
        silent = request.kind == "harmful" and not request.circumstance
        found.setdefault("look-alike, harmful" if silent else request.kind, []).append(request)
        if request.kind == "borderline" and replace(request, circumstance="").kind == "harmful":
            found.setdefault("look-alike, excused", []).append(request)
    return found


def _severities(verdicts: Sequence[OracleVerdict]) -> dict[str, Any]:
    """PKU-SafeRLHF's columns of the harm of both answers."""
    columns: dict[str, Any] = {}
    for number, verdict in enumerate(verdicts):
        columns[f"response_{number}_harm_category"] = {name: name in verdict.harm for name in CATEGORIES}
        level = max(verdict.harm.values(), default=0.0)
        columns[f"response_{number}_severity_level"] = SEVERITY_LEVELS.index(level)
    return columns


def _safer_of_equals(flag: bool, verdicts: Sequence[OracleVerdict], rng: random.Random) -> int:
    """Index of the safer of two answers of this flag: of unsafe ones the less helpful, of safe ones a random one."""
    if flag or verdicts[0].p_help == verdicts[1].p_help:
        return rng.randrange(2)
    return int(verdicts[1].p_help < verdicts[0].p_help)


def conversation(request: Request, answer: str) -> list[dict[str, str]]:
    """A question and its answer as chat messages."""
    return [{"role": "user", "content": request.text}, {"role": "assistant", "content": answer}]


def draw_requests(shares: Mapping[Kind, float], split: Split, count: int, rng: random.Random) -> list[Request]:
    """Random requests of a split, whose kinds have the given shares."""
    return [rng.choice(requests_of(split, draw(shares, rng))) for _ in range(count)]


def _distinct_answers(request: Request, kinds: Mapping[AnswerKind, float], count: int, rng: random.Random) -> list[str]:
    answers: list[str] = []
    while len(answers) < count:
        answer = write_answer(request, draw(kinds, rng), rng)
        if answer not in answers:
            answers.append(answer)
    return answers


def draw(shares: Mapping[_Option, float], rng: random.Random) -> _Option:
    """A random option, by its share."""
    return rng.choices(list(shares), weights=list(shares.values()))[0]
