"""Layout of groups as one stream of tokens without padding, with its attention masks.

In the *shared* layout the stream contains a prompt once and all its answers attend to it; in the *packed* layout every
answer has its own copy of the prompt. The last token of an answer predicts no scored token, so it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from bfpo.groups import TokenGroup, moved

Layout = Literal["shared", "packed", "padded"]

# Neighboring sequences share one masked attention call while that adds at most this many masked pairs of tokens, as two
# sequences of 32 tokens do. On CPU, smaller calls cost more than the masking.
_MASKED = 2048

# The first of some places in the stream, and the one after the last.
_Run = tuple[int, int]


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
        until: [T] position in the stream from which on no token sees this one: those after it, up to there, do.
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
    until: Tensor
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
        ends, device = list(accumulate(self.atoms)), self.until.device
        keys = torch.cat([torch.arange(ends[at] - self.atoms[at], ends[at], device=device) for at in piece.atoms])
        queries = torch.arange(piece.start, piece.start + piece.queries, device=device)
        return sees(queries[:, None], keys, self.until, self.position_ids[0], window)


def sees(query: Tensor, key: Tensor, until: Tensor, position: Tensor, window: int | Tensor | None = None) -> Tensor:
    """Whether the tokens at some places in a stream see those at others; ``until`` and ``position`` as in `Stream`."""
    seen = (key <= query) & (query < until[key])
    return seen if window is None else seen & (position[query] - position[key] < window)


def stream_tokens(group: TokenGroup, layout: Layout) -> int:
    """Number of tokens that a group occupies in a layout (if alone in its batch, for "padded")."""
    if layout == "padded":
        return len(group.answers) * group.width
    answers = sum(len(answer) - 1 for answer in group.answers)
    return answers + len(group.prompt) * (len(group.answers) if layout == "packed" else 1)


def build_stream(groups: Sequence[TokenGroup], layout: Layout, device: torch.device | str = "cpu") -> Stream:
    """Lay out groups as one stream, "shared" or "packed"."""
    row = Row()
    scored, targets, owner = ([] for _ in range(3))
    for group in groups:
        length = len(group.prompt)
        for at, answer in enumerate(group.answers):
            row.add([*group.prompt, *answer[:-1]], length if at and layout == "shared" else 0)
            places, predicting = group.scored(at), row.places()[length - 1 :]
            scored += [predicting[place] for place in places]
            targets += [answer[place] for place in places]
            owner += [owner[-1] + 1 if owner else 0] * len(places)
    tokens = [[len(group.scored(at)) for at in range(len(group.answers))] for group in groups]
    sizes = tuple((len(own), sum(own)) for own in tokens)
    number = [index for index, group in enumerate(groups) for _ in group.answers]
    return row.stream(device, (scored, targets, owner, [one for own in tokens for one in own], number), sizes)


class Row:
    """A stream in the making: one sequence after the other, each without the beginning it shares with the one before.

    Attributes:
        ids: the tokens so far.
        positions: position of every token in its own sequence.
        until: see `Stream`; not yet known of the last sequence's tokens.
        starts: place of every sequence's first own token.
        paths: runs of places with the tokens of every sequence, in order.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.until: list[int] = []
        self.starts: list[int] = []
        self.paths: list[tuple[_Run, ...]] = []

    def add(self, ids: Sequence[int], shared: int) -> None:
        """Append a sequence whose first ``shared`` tokens are those of the one before."""
        path, start = self._leave(shared), len(self.ids)
        self.ids += ids[shared:]
        self.positions += range(shared, len(ids))
        self.until += [0] * (len(ids) - shared)
        if len(ids) > shared:
            path.append((path.pop()[0] if path and path[-1][1] == start else start, len(self.ids)))
        self.starts.append(start)
        self.paths.append(tuple(path))

    def places(self) -> list[int]:
        """Places of the last sequence's tokens."""
        return [place for run in self.paths[-1] for place in range(*run)]

    def stream(
        self,
        device: torch.device | str,
        values: Sequence[Sequence[int]] = ((),) * 5,
        sizes: tuple[tuple[int, int], ...] = (),
    ) -> Stream:
        """The stream on a device; ``values`` are its scored, targets, answer, tokens and group."""
        self._leave(0)
        rows = (self.ids, self.positions, self.until, *values)
        ids, positions, until, *others = (moved(torch.tensor(row, dtype=torch.long), device) for row in rows)
        return Stream(ids[None], positions[None], until, *self._pieces(), *others, sizes=sizes)

    def _leave(self, shared: int) -> list[_Run]:
        """The runs of the last sequence's first tokens; the next sequence doesn't see the others."""
        kept: list[_Run] = []
        for first, stop in self.paths[-1] if self.paths else ():
            cut = min(first + shared, stop)
            shared -= cut - first
            self.until[cut:stop] = [len(self.ids)] * (stop - cut)
            if cut > first:
                kept.append((first, cut))
        return kept

    def _pieces(self) -> tuple[tuple[int, ...], tuple[Piece, ...]]:
        """The atoms and the pieces, each with the tokens of one sequence or of several small ones.

        The sequences of a piece see, beside the piece's own tokens, no others than the first one does.
        """
        spans: list[tuple[_Run, list[_Run], bool]] = []
        alone = 0
        for start, path, stop in zip(self.starts, self.paths, [*self.starts[1:], len(self.ids)], strict=True):
            if start == stop:
                continue
            pairs = (stop - start) * sum(last - first for first, last in path)
            if spans:
                (first, _), above, _ = spans[-1]
                together = (stop - first) * (sum(end - begin for begin, end in above) + stop - first)
                if together - alone - pairs <= _MASKED:
                    spans[-1] = ((first, stop), above, False)
                    alone += pairs
                    continue
            spans.append(((start, stop), [(run[0], min(run[1], start)) for run in path if run[0] < start], True))
            alone = pairs
        borders = sorted({place for own, above, _ in spans for run in (own, *above) for place in run})
        number = {place: at for at, place in enumerate(borders)}
        pieces = (
            Piece(
                own[0],
                own[1] - own[0],
                tuple(at for run in (*above, own) for at in range(number[run[0]], number[run[1]])),
                causal,
            )
            for own, above, causal in spans
        )
        return tuple(stop - start for start, stop in pairwise(borders)), tuple(pieces)
