"""Layout of groups as one stream of tokens without padding, with its attention masks.

In the *shared* layout the stream contains a prompt once and all its answers attend to it; in the *packed* layout every
answer has its own copy of the prompt. The last token of an answer predicts no scored token, so it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from bfpo.groups import TokenGroup

Layout = Literal["shared", "packed", "padded"]

# Neighboring groups share one masked attention call up to this many tokens; larger groups have one call per answer,
# which wastes less on masked pairs of tokens. On CPU, smaller calls cost more than the masking.
_TILE = 128


@dataclass(frozen=True)
class Piece:
    """Consecutive queries of the stream, and the atoms that hold their keys.

    Attributes:
        start: position of the first query in the stream.
        queries: number of queries.
        atoms: indices of the atoms with the keys, in order.
        causal: whether the mask is causal: the last query sees all keys, the one before all but one, and so on.
    """

    start: int
    queries: int
    atoms: tuple[int, ...]
    causal: bool


@dataclass(frozen=True)
class Stream:
    """Groups as one row of T tokens, which predict R answer tokens.

    Attributes:
        input_ids: [1, T] tokens.
        position_ids: [1, T] position of every token in its own sequence.
        unit: [T] index of the prompt (with its answers) that a token belongs to; tokens attend within their unit.
        branch: [T] 0 for a prompt's tokens, 1 .. K for those of its answers.
        atoms: lengths of the parts that the stream is split into; they sum to T.
        pieces: queries and their keys; the pieces' queries cover the stream in order.
        scored: [R] position in the stream of the token that predicts each answer token.
        targets: [R] the answer tokens.
        answer: [R] index of each token's answer, 0 .. N-1, non-decreasing.
        tokens: [N] number of scored tokens in every answer.
        group: [N] index of every answer's group, 0 .. G-1, non-decreasing.
        sizes: number of answers and of scored tokens of every group, known without waiting for the device.
    """

    input_ids: Tensor
    position_ids: Tensor
    unit: Tensor
    branch: Tensor
    atoms: tuple[int, ...]
    pieces: tuple[Piece, ...]
    scored: Tensor
    targets: Tensor
    answer: Tensor
    tokens: Tensor
    group: Tensor
    sizes: tuple[tuple[int, int], ...]
    _made: dict[Any, Any] = field(default_factory=dict)

    def remember(self, key: Any, make: Callable[[], Any]) -> Any:
        """A cached value, computed by the first layer and shared by all."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def masks(self, window: int | None = None) -> list[Tensor | None]:
        """[queries, keys] bool mask of every piece, None for a causal one; ``window`` is that of sliding attention."""
        return self.remember(("pieces", window), lambda: [self._mask(piece, window) for piece in self.pieces])

    def _mask(self, piece: Piece, window: int | None) -> Tensor | None:
        size = sum(self.atoms[atom] for atom in piece.atoms)
        if piece.causal and piece.queries == size and (window is None or size <= window):
            return None
        ends, device = list(accumulate(self.atoms)), self.unit.device
        keys = torch.cat([torch.arange(ends[at] - self.atoms[at], ends[at], device=device) for at in piece.atoms])
        queries = slice(piece.start, piece.start + piece.queries)
        position = self.position_ids[0]
        distance = position[queries, None] - position[keys]
        visible = (self.unit[queries, None] == self.unit[keys]) & (distance >= 0)
        visible &= (self.branch[keys] == 0) | (self.branch[queries, None] == self.branch[keys])
        return visible if window is None else visible & (distance < window)


def stream_tokens(group: TokenGroup, layout: Layout) -> int:
    """Number of tokens that a group occupies in a layout (if alone in its batch, for "padded")."""
    if layout == "padded":
        return len(group.answers) * group.width
    answers = sum(len(answer) - 1 for answer in group.answers)
    return answers + len(group.prompt) * (len(group.answers) if layout == "packed" else 1)


def build_stream(groups: Sequence[TokenGroup], layout: Layout, device: torch.device | str = "cpu") -> Stream:
    """Lay out groups as one stream, "shared" or "packed"."""
    units = list(groups)
    if layout == "packed":
        answers = ((group, at, ids) for group in groups for at, ids in enumerate(group.answers))
        units = [TokenGroup(group.prompt, [ids], group.context[at : at + 1]) for group, at, ids in answers]
    ids, positions, owner, branch, scored, targets, answer = ([] for _ in range(7))
    for number, unit in enumerate(units):
        last, length = len(ids) + len(unit.prompt) - 1, len(unit.prompt)
        parts = [unit.prompt, *(tokens[:-1] for tokens in unit.answers)]
        for index, part in enumerate(parts):
            if index:
                places, predicting = unit.scored(index - 1), [last, *range(len(ids), len(ids) + len(part))]
                scored += [predicting[place] for place in places]
                targets += [unit.answers[index - 1][place] for place in places]
                answer += [answer[-1] + 1 if answer else 0] * len(places)
            ids += part
            positions += range(length if index else 0, (length if index else 0) + len(part))
            owner += [number] * len(part)
            branch += [index] * len(part)
    atoms, pieces = _pieces(units)

    on_gpu = torch.device(device).type == "cuda"
    tokens = [[len(group.scored(at)) for at in range(len(group.answers))] for group in groups]

    def row(values: Sequence[int]) -> Tensor:
        made = torch.tensor(values, dtype=torch.long)
        # A copy from pinned memory doesn't wait until the device has done what was asked of it before.
        return made.pin_memory().to(device, non_blocking=True) if on_gpu else made.to(device)

    return Stream(
        input_ids=row(ids)[None],
        position_ids=row(positions)[None],
        unit=row(owner),
        branch=row(branch),
        atoms=tuple(atoms),
        pieces=tuple(pieces),
        scored=row(scored),
        targets=row(targets),
        answer=row(answer),
        tokens=row([number for own in tokens for number in own]),
        group=row([index for index, group in enumerate(groups) for _ in group.answers]),
        sizes=tuple((len(own), sum(own)) for own in tokens),
    )


def _pieces(units: Sequence[TokenGroup]) -> tuple[list[int], list[Piece]]:
    """Atoms and pieces: one of each for small neighboring units, one piece per answer for large units."""
    atoms: list[int] = []
    pieces: list[Piece] = []
    start, open_tile = 0, False
    for unit in units:
        size = stream_tokens(unit, "shared")
        if size <= _TILE:
            if open_tile and atoms[-1] + size <= _TILE:
                atoms[-1] += size
                pieces[-1] = Piece(pieces[-1].start, atoms[-1], pieces[-1].atoms, causal=False)
            else:
                atoms.append(size)
                pieces.append(Piece(start, size, (len(atoms) - 1,), causal=len(unit.answers) == 1))
            open_tile = True
        else:
            prompt, parts = len(atoms), [len(tokens) - 1 for tokens in unit.answers]
            atoms += [len(unit.prompt), *parts]
            at = start
            for index, part in enumerate(parts):
                queries = part if index else len(unit.prompt) + part
                if queries:
                    pieces.append(Piece(at, queries, (prompt, prompt + 1 + index), causal=True))
                at += queries
            open_tile = False
        start += size
    return atoms, pieces
