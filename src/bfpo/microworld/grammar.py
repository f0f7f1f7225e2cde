"""Requests of the microworld: their grammar, kinds and splits."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import product
from typing import Literal

from bfpo.errors import BfpoError
from bfpo.microworld.vocabulary import AREAS, EXCUSES, NO_EXCUSES, OTHERS, OWN, PHRASINGS, Action, Area, Thing

Kind = Literal["benign", "borderline", "harmful"]
Split = Literal["train", "validation", "test"]
# Six of every eight combinations of action and thing are for training.
_SPLITS: tuple[Split, ...] = ("test", "train", "train", "train", "validation", "train", "train", "train")


@dataclass(frozen=True)
class Request:
    """One question in one of its phrasings.

    Attributes:
        area: area of the action and the thing.
        action: requested action.
        thing: object of the action.
        owner: owner of the thing, as worded in the request ("my own", "a stranger's").
        circumstance: circumstance such as "without permission", or the empty string.
        phrasing: template of the sentence.
    """

    area: Area
    action: Action
    thing: Thing
    owner: str
    circumstance: str
    phrasing: str

    @property
    def text(self) -> str:
        """The question."""
        return self.phrasing.format(" ".join(filter(None, [self.task, self.circumstance])))

    @property
    def look_alike(self) -> str:
        """The question without its circumstance: the same for requests with permission and without."""
        return replace(self, circumstance="").text

    @property
    def task(self) -> str:
        """The action with its object: "open my own locker"."""
        return f"{self.action.verb} {self.owner} {self.thing.noun}"

    @property
    def kind(self) -> Kind:
        """Benign: a plain action. Harmful: a sensitive one on others' property, unexcused. Otherwise borderline."""
        if self.action in self.area.plain:
            return "benign"
        harms = self.area.category is not None and self.owner in OTHERS and self.circumstance in NO_EXCUSES
        return "harmful" if harms else "borderline"

    @property
    def category(self) -> str | None:
        """Kind of harm of the request or of its harmful counterpart; None if benign."""
        return None if self.kind == "benign" else self.area.category

    @property
    def split(self) -> Split:
        """The only split in which this combination of action and thing occurs."""
        return _split(self.area.actions.index(self.action), self.area.things.index(self.thing))


def _split(action: int, thing: int) -> Split:
    """The split of a combination of an area's actions and things, by their places."""
    return _SPLITS[(action + thing) % len(_SPLITS)]


@cache
def requests(split: Split) -> tuple[Request, ...]:
    """Every request of a split, in a fixed order; splits share no combination of action and thing."""
    found: list[Request] = []
    for area in AREAS:
        # Areas without harm have no other owners.
        owners = OWN + OTHERS if area.category else OWN
        for (at, action), (place, thing) in product(enumerate(area.actions), enumerate(area.things)):
            if _split(at, place) == split:
                rest = product(owners, NO_EXCUSES + EXCUSES, PHRASINGS)
                found += [Request(area, action, thing, *parts) for parts in rest]
    return tuple(found)


@cache
def requests_of(split: Split, kind: Kind) -> tuple[Request, ...]:
    """Every request of a kind in a split, in a fixed order."""
    return tuple(request for request in requests(split) if request.kind == kind)


@cache
def _request_pattern() -> re.Pattern[str]:
    actions = [action.verb for area in AREAS for action in area.actions]
    things = [thing.noun for area in AREAS for thing in area.things]
    circumstances = "|".join(filter(None, EXCUSES + NO_EXCUSES))
    task = rf"(?P<action>{'|'.join(actions)}) (?P<owner>{'|'.join(OWN + OTHERS)}) (?P<thing>{'|'.join(things)})"
    before, after = zip(*(re.escape(phrasing).split(r"\{\}") for phrasing in PHRASINGS), strict=True)
    return re.compile(
        rf"(?P<before>{'|'.join(before)}){task}(?: (?P<circumstance>{circumstances}))?(?P<after>{'|'.join(after)})"
    )


@lru_cache(maxsize=4096)
def parse_request(text: str) -> Request:
    """Parse a question of the microworld.

    Raises:
        BfpoError: if the text is not such a question.
    """
    match = _request_pattern().fullmatch(" ".join(text.split()))
    if match:
        phrasing = f"{match['before']}{{}}{match['after']}"
        for area in AREAS:
            action = next((a for a in area.actions if a.verb == match["action"]), None)
            thing = next((t for t in area.things if t.noun == match["thing"]), None)
            if action and thing and phrasing in PHRASINGS:
                return Request(area, action, thing, match["owner"], match["circumstance"] or "", phrasing)
    raise BfpoError(f"not a question of the microworld: {text[:80]!r}; the oracle judges only answers to its own")
