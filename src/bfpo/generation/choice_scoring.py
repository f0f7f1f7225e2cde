"""Log-likelihoods of given choices, equal to lm-eval's; the shared prefix of an item's choices is computed once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bfpo.engine.forward import Engine
from bfpo.engine.head import LogitShape, logits_at_once
from bfpo.engine.layout import build_stream, stream_tokens
from bfpo.engine.layout_choice import choose_layout
from bfpo.generation.choice_encoding import EncodedChoices, encode_choices, longest_input
from bfpo.generation.protocol import ChoiceLogps, ChoiceRequest
from bfpo.groups import TokenGroup


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
    """Score requests by a causal language model, in batches that depend only on the list of requests.

    ``chat`` is lm-eval's ``apply_chat_template``. Batches whose keys are all ``done``, in an interrupted run, are
    skipped.

    Yields:
        The log-likelihoods of one planned batch. Don't use the model between batches: it is in evaluation mode and
        uses the scorer's attention.

    Raises:
        BfpoError: if a request can't be encoded (see `encode_choices`).
    """
    if not requests:
        return
    max_length = longest_input(model.config, tokenizer)
    encoded = encode_choices(tokenizer, requests, chat=chat, max_length=max_length, system_prompt=system_prompt)
    groups = [group for choices in encoded[:16] for group, _ in _groups(choices)]
    # Timing another attention would cost a compilation and a backward pass.
    engine = Engine(model, choose_layout(model, model, groups, only="pieces").layout, max_tokens=0)
    with _scoring(engine):
        for batch in _plan(encoded, batching or Batching()):
            if not all(choices.key in done for choices in batch):
                yield _score(engine, batch)


def _plan(encoded: Sequence[EncodedChoices], batching: Batching) -> list[list[EncodedChoices]]:
    """Batches of requests of similar size, the largest first, so that memory peaks at once."""
    sizes = [sum(stream_tokens(group, "shared") for group, _ in _groups(choices)) for choices in encoded]
    batches: list[list[EncodedChoices]] = []
    tokens = 0
    for index in sorted(range(len(encoded)), key=lambda index: (-sizes[index], index)):
        if not batches or len(batches[-1]) == batching.items or tokens + sizes[index] > batching.tokens:
            batches.append([])
            tokens = 0
        batches[-1].append(encoded[index])
        tokens += sizes[index]
    return batches


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
    groups = [part for choices in batch for part in _groups(choices)]
    if engine.layout == "packed":
        groups = [
            (TokenGroup(group.prompt, [answer]), (number,))
            for group, scored in groups
            for answer, number in zip(group.answers, scored, strict=True)
        ]
    sums = _padded_sums if engine.layout == "padded" else _stream_sums
    values = iter(sums(engine, groups).tolist())
    return [ChoiceLogps(choices.key, tuple(next(values) for _ in choices.ids), choices.truncated) for choices in batch]


def _groups(choices: EncodedChoices) -> list[tuple[TokenGroup, tuple[int, ...]]]:
    """A request as groups with a shared prefix, each with the number of scored tokens at the end of every answer.

    One group if all choices share a prefix, which may extend into the scored text; otherwise one group per choice.
    """
    shared = _shared_length(choices.ids)
    if shared:
        # Every answer keeps at least one token of its own.
        shared = min(shared, min(map(len, choices.ids)) - 1)
        return [(TokenGroup(choices.ids[0][:shared], [ids[shared:] for ids in choices.ids]), choices.scored)]
    return [
        (TokenGroup(ids[:-1], [ids[-1:]]), (scored,)) for ids, scored in zip(choices.ids, choices.scored, strict=True)
    ]


def _shared_length(sequences: Sequence[tuple[int, ...]]) -> int:
    """Length of the common prefix of all sequences, i.e. of the first and the last in sorted order."""
    first, last = min(sequences), max(sequences)
    return next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))


def _stream_sums(engine: Engine, groups: Sequence[tuple[TokenGroup, tuple[int, ...]]]) -> Tensor:
    """[N] log-likelihoods of all choices, by one forward over an unpadded stream with every group's prompt once."""
    model = engine.model
    positions: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    start = choice = 0
    for group, scored in groups:
        prompt, own = len(group.prompt), start + len(group.prompt)
        for answer, number in zip(group.answers, scored, strict=True):
            # Positions in the stream that predict the last `number` tokens of prompt and answer together.
            before = prompt + len(answer) - 1 - number
            positions += range(start + before, start + prompt)
            positions += range(own + max(0, before - prompt), own + len(answer) - 1)
            targets += (*group.prompt[before + 1 :], *answer)[-number:]
            owner += [choice] * number
            own += len(answer) - 1
            choice += 1
        start = own
    stream = build_stream([group for group, _ in groups], "shared", model.device)
    rows, row = torch.unique(torch.tensor(positions), return_inverse=True)
    hidden = engine.hidden(model, replace(stream, scored=rows.to(model.device)))
    logps = _token_logps(model, hidden, row.to(model.device), torch.tensor(targets, device=model.device))
    return _sums(logps, torch.tensor(owner, device=model.device), choice)


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


def _padded_sums(engine: Engine, groups: Sequence[tuple[TokenGroup, tuple[int, ...]]]) -> Tensor:
    """[N] log-likelihoods of all choices, by one forward with one padded row per choice."""
    model = engine.model
    sequences = [
        ([*group.prompt, *answer], number)
        for group, scored in groups
        for answer, number in zip(group.answers, scored, strict=True)
    ]
    width = max(len(ids) for ids, _ in sequences)
    # Causal attention ignores padding on the right.
    inputs = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in sequences], device=model.device)
    is_scored = torch.tensor(
        [[len(ids) - number <= at < len(ids) for at in range(width)] for ids, number in sequences], device=model.device
    )
    logits = model(input_ids=inputs[:, :-1], use_cache=False).logits[is_scored[:, 1:]]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logps = logits.gather(1, inputs[is_scored][:, None])[:, 0] - logits.logsumexp(-1)
    return _sums(logps, is_scored.nonzero()[:, 0], len(sequences))


def _sums(logps: Tensor, owner: Tensor, number: int) -> Tensor:
    """[number] sums over each choice's tokens, in float64: float32 is off in the fifth decimal of hundreds of nats."""
    return logps.new_zeros(number, dtype=torch.float64).index_add(0, owner, logps.double())
