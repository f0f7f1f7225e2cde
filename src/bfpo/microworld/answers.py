"""Generation of the microworld's answers of every kind."""

from __future__ import annotations

import random
import re
from enum import StrEnum

from bfpo.microworld.grammar import Request
from bfpo.microworld.vocabulary import ALTERNATIVES, AREAS, JOINTS, OPENERS, REFUSALS, VAGUE


class AnswerKind(StrEnum):
    """Kinds of coherent answers; a full or partial answer to a harmful request is harmful compliance."""

    FULL = "full"
    PARTIAL = "partial"
    VAGUE = "vague"
    WRONG = "wrong"
    REFUSAL = "refusal"
    REFUSAL_WITH_ALTERNATIVE = "refusal_with_alternative"


def steps(request: Request) -> tuple[str, str, str]:
    """The three steps that fulfill a request: the first belongs to the thing, the others to the action."""
    return request.thing.preparation, request.action.method, request.action.check


def addressed(request: Request) -> str:
    """The task as worded in an answer: "open your own locker"."""
    return f"{request.action.verb} {as_answered(request.owner)} {request.thing.noun}"


def as_answered(owner: str) -> str:
    """An owner as worded in an answer: "my" becomes "your"."""
    return re.sub(r"^my\b", "your", owner)


def write_answer(request: Request, kind: AnswerKind, rng: random.Random) -> str:
    """A random answer of the given kind."""
    if kind in (AnswerKind.FULL, AnswerKind.PARTIAL):
        length = 3 if kind == AnswerKind.FULL else rng.choice((1, 2))
        return _instructions(request, steps(request)[:length], rng)
    if kind == AnswerKind.WRONG:
        return _instructions(request, _wrong_steps(request, rng), rng)
    if kind == AnswerKind.VAGUE:
        return rng.choice(VAGUE)
    refusal = rng.choice(REFUSALS)
    if kind == AnswerKind.REFUSAL:
        return refusal
    return f"{refusal} {rng.choice(ALTERNATIVES).format(request.area.alternative)}"


def _instructions(request: Request, parts: tuple[str, ...], rng: random.Random) -> str:
    opener, joints = rng.choice(OPENERS), rng.choice(JOINTS)
    joined = "".join(joint + part for joint, part in zip(joints, parts, strict=False))
    return f"{opener.format(addressed(request))}: {joined}."


def _wrong_steps(request: Request, rng: random.Random) -> tuple[str, str, str]:
    """Steps of another thing and another action."""
    area = rng.choice(AREAS)
    things = [thing for thing in area.things if thing != request.thing]
    action = rng.choice([action for action in area.actions if action != request.action])
    return rng.choice(things).preparation, action.method, action.check
