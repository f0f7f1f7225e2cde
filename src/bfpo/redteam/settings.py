"""Settings of red teaming."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from bfpo.errors import BfpoError, did_you_mean
from bfpo.generation.protocol import Decoding
from bfpo.redteam.attacker import STYLE as ATTACKER
from bfpo.redteam.styles import HELD_OUT_STYLES, STYLES


@dataclass(frozen=True)
class RedTeam:
    """Settings of red teaming.

    Attributes:
        attacks: number of attacks; each is a styled request with its twin.
        turns: number of turns that they are tried in; every turn but the first is chosen by what was found before.
        styles: styles that training sees.
        held_out: styles that training never sees; attacks in them are measured at the end, as many as in a turn.
        decoding: how answers are sampled, and how many to each prompt, >= 2, or with ``refusals`` >= 1.
        seed: random seed of the attacks.
        refusals: written refusals, one of which joins the answers to every prompt, for a model that hardly ever
            declines by itself; see `bfpo.redteam.grouping.preference_groups`.

    Raises:
        BfpoError: if a value is out of range.
    """

    attacks: int = 200
    turns: int = 4
    styles: tuple[str, ...] = tuple(name for name in STYLES if name not in HELD_OUT_STYLES)
    held_out: tuple[str, ...] = HELD_OUT_STYLES
    decoding: Decoding = field(default_factory=partial(Decoding, samples=4))
    seed: int = 0
    refusals: tuple[str, ...] = ()

    def in_turn(self, turn: int) -> int:
        """Number of attacks in a turn, which counts from 0."""
        return self.attacks * (turn + 1) // self.turns - self.attacks * turn // self.turns

    @property
    def measured(self) -> int:
        """Number of attacks in held-out styles."""
        return self.attacks // self.turns if self.held_out else 0

    def __post_init__(self) -> None:
        if not 1 <= self.turns <= self.attacks:
            raise BfpoError(f"{self.attacks} attacks can't be tried in {self.turns} turns: at least one a turn")
        if not all(refusal.strip() for refusal in self.refusals):
            raise BfpoError("a written refusal is blank: write a sentence that declines, or leave it out")
        if not self.refusals and (self.decoding.samples < 2 or self.decoding.temperature == 0):
            raise BfpoError("answers to one prompt are compared: sample two or more at a temperature above 0")
        for name in (*self.styles, *self.held_out):
            if name not in (*STYLES, ATTACKER):
                what = f"there is no attack style {name!r}{did_you_mean(name, STYLES)}"
                raise BfpoError(f"{what}; the styles are {', '.join(STYLES)}")
        both = set(self.styles) & set(self.held_out)
        if both or not self.styles:
            raise BfpoError(f"styles to train on must differ from those held out: {', '.join(both) or 'none is left'}")
