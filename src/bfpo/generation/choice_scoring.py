"""Log-likelihoods of given choices, equal to lm-eval's; what choices of a batch begin with is computed once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bfpo.continuation import enough_memory, refuse_nan
from bfpo.engine.forward import Engine
from bfpo.engine.head import LogitShape, logits_at_once
from bfpo.engine.layout import Layout
from bfpo.engine.layout_choice import choose_layout
from bfpo.engine.tree import build_tree
from bfpo.generation.choice_encoding import EncodedChoices, encode_choices, longest_input
from bfpo.generation.protocol import ChoiceLogps, ChoiceRequest
from bfpo.groups import TokenGroup
from bfpo.sequences import common_length

# Choices share their beginnings from this many tokens on; for fewer, the masks cost more than they save.
_LEAST_SHARED = 4

# Tokens of a choice, and the number of scored ones at its end.
_Choice = tuple[tuple[int, ...], int]


@dataclass(frozen=True)
class Batching:
    """Batch limits of the scorer, which change log-likelihoods only by rounding.

    Attributes:
        items: largest number of requests in a batch.
        tokens: largest number of tokens in a batch; a larger request is its own batch.
    """

    items: int = 64
    tokens: int = 16_384


def score_choices(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[ChoiceRequest],
    *,
    chat: bool,
    system_prompt: str | None = None,
    batching: Batching | None = None,
    done: Collection[str] = frozenset(),
) -> Iterator[list[ChoiceLogps]]:
    """Score requests by a causal language model, in batches that depend only on the list of requests and the layout.

    ``chat`` is lm-eval's ``apply_chat_template``. Batches whose keys are all ``done``, in an interrupted run, are
    skipped.

    Yields:
        The log-likelihoods of one planned batch. Don't use the model between batches: it is in evaluation mode and
        uses the scorer's attention.

    Raises:
        BfpoError: if a request can't be encoded (see `encode_choices`).
        RunError: if the model's scores are not numbers, or memory doesn't suffice.
    """
    if not requests:
        return
    max_length = longest_input(model.config, tokenizer)
    encoded = encode_choices(tokenizer, requests, chat=chat, max_length=max_length, system_prompt=system_prompt)
    groups = [group for choices in encoded[:16] for group in _as_groups(choices.ids)]
    longest = max(_as_groups(min(encoded, key=_shortness).ids), key=lambda group: group.width)
    # Timing another attention would cost a compilation and a backward pass.
    with enough_memory("comparing layouts for the choices"):
        layout = choose_layout(model, model, groups, longest=longest, only="pieces").layout
    engine = Engine(model, layout, max_tokens=0)
    with _scoring(engine):
        for batch in _plan(encoded, batching or Batching(), engine.layout):
            if not all(choices.key in done for choices in batch):
                yield _score(engine, batch)


def _plan(encoded: Sequence[EncodedChoices], batching: Batching, layout: Layout) -> list[list[EncodedChoices]]:
    """Batches of requests that begin alike, or that are equally long where nothing is shared.

    The largest is the first, so that memory peaks at once.
    """
    ordered = sorted(encoded, key=lambda one: min(one.ids)) if layout == "shared" else sorted(encoded, key=_shortness)
    batches: list[list[EncodedChoices]] = []
    sizes: list[int] = []
    width = 0
    for choices in ordered:
        size = _tokens(choices.ids, layout, width)
        if not batches or len(batches[-1]) == batching.items or sizes[-1] + size > batching.tokens:
            batches.append([])
            sizes.append(0)
            width = -_shortness(choices)
            size = _tokens(choices.ids, layout, width)
        batches[-1].append(choices)
        sizes[-1] += size
    return [batches[at] for at in sorted(range(len(batches)), key=lambda at: -sizes[at])]


def _shortness(choices: EncodedChoices) -> int:
    """The length of a request's longest choice, with a minus."""
    return -max(map(len, choices.ids))


def _tokens(sequences: Sequence[tuple[int, ...]], layout: Layout, width: int) -> int:
    """Number of tokens of a request's choices in a layout; padded ones are ``width`` long."""
    if layout == "padded":
        return len(sequences) * width
    ordered = sorted(sequences)
    shared = sum(common_length(one, other) for one, other in pairwise(ordered)) if layout == "shared" else 0
    return sum(map(len, ordered)) - shared


@contextmanager
def _scoring(engine: Engine) -> Iterator[None]:
    """Context for forward passes, in evaluation mode; restores the model at the end."""
    was_training = engine.model.training
    engine.model.eval()
    try:
        with engine.attached():
            yield
    finally:
        engine.model.train(was_training)


@torch.inference_mode()
def _score(engine: Engine, batch: Sequence[EncodedChoices]) -> list[ChoiceLogps]:
    """Score one batch with one forward pass, one result per request in order."""
    choices = [pair for request in batch for pair in zip(request.ids, request.scored, strict=True)]
    with enough_memory(f"scoring {len(choices):,} choices of up to {-min(map(_shortness, batch)):,} tokens"):
        sums = _padded_sums(engine, choices) if engine.layout == "padded" else _stream_sums(engine, choices)
    refuse_nan(sums)
    values = iter(sums.tolist())
    return [ChoiceLogps(request.key, tuple(next(values) for _ in request.ids), request.truncated) for request in batch]


def _as_groups(sequences: Sequence[tuple[int, ...]]) -> list[TokenGroup]:
    """The choices of a request as groups: one if they begin alike, else one per choice."""
    # Every answer keeps at least one token of its own.
    shared = min(common_length(min(sequences), max(sequences)), min(map(len, sequences)) - 1)
    if shared:
        return [TokenGroup(sequences[0][:shared], [ids[shared:] for ids in sequences])]
    return [TokenGroup(ids[:-1], [ids[-1:]]) for ids in sequences]


def _stream_sums(engine: Engine, choices: Sequence[_Choice]) -> Tensor:
    """[N] log-likelihoods of choices, by one forward over an unpadded stream."""
    device = engine.model.device
    order = sorted(range(len(choices)), key=lambda number: choices[number][0])
    least = _LEAST_SHARED if engine.layout == "shared" else None
    # A sequence's last token predicts nothing.
    stream, places = build_tree([choices[number][0][:-1] for number in order], least, device)
    positions: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    for number, own in zip(order, places, strict=True):
        ids, scored = choices[number]
        positions += own[len(own) - scored :]
        targets += ids[len(ids) - scored :]
        owner += [number] * scored
    rows, row = torch.unique(torch.tensor(positions), return_inverse=True)
    hidden = engine.hidden(engine.model, replace(stream, scored=rows.to(device)))
    logps = _token_logps(engine.model, hidden, row.to(device), torch.tensor(targets, device=device))
    return _sums(logps, torch.tensor(owner, device=device), len(choices))


def _token_logps(model: PreTrainedModel, hidden: Tensor, row: Tensor, targets: Tensor) -> Tensor:
    """[R] log-probabilities of tokens, each predicted by one of [U, width] hidden states.

    Only the logits of a few hidden states are in memory at once.
    """
    head, shape = model.get_output_embeddings(), LogitShape.of(model.config)
    assert isinstance(head, torch.nn.Module)
    size = max(1, logits_at_once(hidden.device) // model.config.get_text_config().vocab_size)
    logps = torch.empty(len(targets), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
    for start in range(0, len(hidden), size):
        logits = shape(head(hidden[start : start + size]).to(logps.dtype))
        here = ((row >= start) & (row < start + size)).nonzero()[:, 0]
        own = row[here] - start
        logps[here] = logits[own, targets[here]] - logits.logsumexp(-1)[own]
    return logps


def _padded_sums(engine: Engine, choices: Sequence[_Choice]) -> Tensor:
    """[N] log-likelihoods of choices, by one forward with one padded row per choice."""
    model = engine.model
    width = max(len(ids) for ids, _ in choices)
    # Causal attention ignores padding on the right.
    inputs = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids, _ in choices], device=model.device)
    is_scored = torch.tensor(
        [[len(ids) - number <= at < len(ids) for at in range(width)] for ids, number in choices], device=model.device
    )
    logits = model(input_ids=inputs[:, :-1], use_cache=False).logits[is_scored[:, 1:]]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logps = logits.gather(1, inputs[is_scored][:, None])[:, 0] - logits.logsumexp(-1)
    return _sums(logps, is_scored.nonzero()[:, 0], len(choices))


def _sums(logps: Tensor, owner: Tensor, number: int) -> Tensor:
    """[number] sums over each choice's tokens, in float64: float32 is off in the fifth decimal of hundreds of nats."""
    return logps.new_zeros(number, dtype=torch.float64).index_add(0, owner, logps.double())
