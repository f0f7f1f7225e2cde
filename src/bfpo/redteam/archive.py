"""The archive of red teaming: how well each request worked, by kind of harm and attack style.

After Rainbow Teaming (arXiv 2402.16822): the archive has a cell for every pair of features, here the kind of harm and
the style; new attacks are drawn for the cells whose best attack works worst, as mutations of attacks that worked
elsewhere. A mutation here is another style for the same request; no model writes anything.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bfpo.redteam.bank import Pair

# Added to the weight of every cell, so that those that are won are visited too.
_FLOOR = 0.1
# Share of the attacks that take a request from another style of the same harm, rather than a new one.
_MUTATED = 0.5

Cell = tuple[str, str]


@dataclass(frozen=True)
class Planned:
    """An attack to try: a pair of the bank and the style for both of its requests."""

    pair: Pair
    style: str

    @property
    def cell(self) -> Cell:
        """Kind of harm and style."""
        return self.pair.category, self.style


@dataclass(frozen=True)
class Tried:
    """An attack that was tried.

    Attributes:
        planned: the attack.
        success: share of its answers that the judge calls unsafe, in [0, 1].
    """

    planned: Planned
    success: float


@dataclass(frozen=True)
class Archive:
    """Attacks that were tried, and the choice of the next ones.

    Attributes:
        pairs: pairs of requests to attack with.
        styles: styles to attack with.
        tried: attacks that were tried, in order.
    """

    pairs: Sequence[Pair]
    styles: Sequence[str]
    tried: tuple[Tried, ...] = ()

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every kind of harm with every style."""
        categories = dict.fromkeys(pair.category for pair in self.pairs)
        return tuple((category, style) for category in categories for style in self.styles)

    @cached_property
    def best(self) -> Mapping[Cell, Tried]:
        """The attack of each cell that worked best, the earliest of equal ones; without cells that weren't tried."""
        found: dict[Cell, Tried] = {}
        for tried in self.tried:
            known = found.get(tried.planned.cell)
            if known is None or tried.success > known.success:
                found[tried.planned.cell] = tried
        return found

    def with_outcomes(self, outcomes: Iterable[Tried]) -> Archive:
        """The archive with further attacks that were tried."""
        return Archive(self.pairs, self.styles, (*self.tried, *outcomes))

    def choose(self, count: int, seed: int) -> list[Planned]:
        """Attacks to try next; none is tried twice.

        A cell's weight is one minus the success of its best attack, and a little. Half of the requests come from
        attacks of the same harm that worked in another style, the likelier the better they worked; the others are any
        that are new to the cell.

        Args:
            count: number of attacks; fewer are returned if no more are left.
            seed: random seed; the choice depends on it and on what was tried.
        """
        rng = random.Random(f"{seed} {len(self.tried)}")
        done = {(tried.planned.pair.id, tried.planned.style) for tried in self.tried}
        chosen: list[Planned] = []
        open_cells = {cell: self._open(cell, done) for cell in self.cells}
        while len(chosen) < count and (cells := [cell for cell, pairs in open_cells.items() if pairs]):
            weights = [1 + _FLOOR - (self.best[cell].success if cell in self.best else 0.0) for cell in cells]
            cell = rng.choices(cells, weights)[0]
            pair = self._request(cell, open_cells[cell], rng)
            open_cells[cell].remove(pair)
            chosen.append(Planned(pair, cell[1]))
        return chosen

    def _open(self, cell: Cell, done: set[tuple[str, str]]) -> list[Pair]:
        category, style = cell
        return [pair for pair in self.pairs if pair.category == category and (pair.id, style) not in done]

    def _request(self, cell: Cell, pairs: Sequence[Pair], rng: random.Random) -> Pair:
        """A request that is new to the cell."""
        worked = {
            tried.planned.pair: tried.success
            for tried in self.tried
            if tried.planned.pair.category == cell[0] and tried.planned.style != cell[1] and tried.success > 0
        }
        parents = [pair for pair in pairs if pair in worked]
        if parents and rng.random() < _MUTATED:
            return rng.choices(parents, [worked[pair] for pair in parents])[0]
        return rng.choice(pairs)
