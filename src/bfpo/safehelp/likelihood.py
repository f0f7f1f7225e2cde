"""The likelihood runner: log-likelihoods of choices, equal to lm-eval's, each item's common beginning read once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bfpo.engine.forward import Engine
from bfpo.engine.head import LOGITS_AT_ONCE, LogitShape
from bfpo.engine.layout import build_stream, stream_tokens
from bfpo.engine.layout_choice import choose_layout
from bfpo.groups import TokenGroup
from bfpo.safehelp.items import ChoiceItem
from bfpo.safehelp.likelihood_encoding import Request, encode_items, longest_input
from bfpo.safehelp.records import LikelihoodRecord


@dataclass(frozen=True)
class Batching:
    """How much goes through the model at once; no log-likelihood depends on it beyond rounding.

    Attributes:
        items: items of a batch, at most.
        tokens: tokens of a batch, at most; an item that has more is a batch of its own.
    """

    items: int = 64
    tokens: int = 16_384


def run_choices(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[ChoiceItem],
    *,
    chat: bool,
    system_prompt: str | None = None,
    batching: Batching | None = None,
    done: Collection[tuple[str, str]] = frozenset(),
) -> Iterator[list[LikelihoodRecord]]:
    """Score items, batch by batch as planned from the list of items alone.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        items: what to score.
        chat: whether prompts go through the chat template; lm-eval's ``apply_chat_template``.
        system_prompt: a system message before the user's.
        batching: how much goes through the model at once.
        done: task and name of items that a run before this one scored; a batch of nothing else is left out.

    Yields:
        The records of one planned batch. Until the last one the model is in evaluation mode and attends in a way of
        its own: don't use it for anything else in between.

    Raises:
        BfpoError: if an item can't be encoded (see `encode_items`).
    """
    if not items:
        return
    max_length = longest_input(model.config, tokenizer)
    requests = encode_items(tokenizer, items, chat=chat, max_length=max_length, system_prompt=system_prompt)
    scorer = Scorer.of(model, requests)
    with scorer.attached():
        for batch in plan(requests, batching or Batching()):
            if not all((request.item.task, request.item.item) in done for request in batch):
                yield scorer.score(batch)


def plan(requests: Sequence[Request], batching: Batching) -> list[list[Request]]:
    """Batches of items of similar size, the largest first, so that memory peaks at once."""
    sizes = [sum(stream_tokens(group, "shared") for group, _ in _groups(request)) for request in requests]
    batches: list[list[Request]] = []
    tokens = 0
    for index in sorted(range(len(requests)), key=lambda index: (-sizes[index], index)):
        if not batches or len(batches[-1]) == batching.items or tokens + sizes[index] > batching.tokens:
            batches.append([])
            tokens = 0
        batches[-1].append(requests[index])
        tokens += sizes[index]
    return batches


@dataclass(frozen=True)
class Scorer:
    """Scores batches with a model in the layout that the model can do."""

    engine: Engine

    @classmethod
    def of(cls, model: PreTrainedModel, requests: Sequence[Request]) -> Scorer:
        """With the layout whose numbers equal the plain padded forward's on three of the items."""
        groups = [group for request in requests[:16] for group, _ in _groups(request)]
        return cls(Engine(model, choose_layout(model, model, groups).layout, max_tokens=0))

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Whatever is scored is scored in here; the model is put back as it was at the end."""
        model = self.engine.model
        was_training = model.training
        model.eval()
        try:
            with self.engine.attached():
                yield
        finally:
            model.train(was_training)

    @torch.inference_mode()
    def score(self, batch: Sequence[Request]) -> list[LikelihoodRecord]:
        """Score one batch of items with one forward.

        Returns:
            A record for each, in the order given.
        """
        groups = [part for request in batch for part in _groups(request)]
        if self.engine.layout == "packed":
            groups = [
                (TokenGroup(group.prompt, [answer]), (number,))
                for group, scored in groups
                for answer, number in zip(group.answers, scored, strict=True)
            ]
        by_layout = _padded_sums if self.engine.layout == "padded" else _stream_sums
        values = iter(by_layout(self.engine, groups).tolist())
        return [_record(request, [next(values) for _ in request.ids]) for request in batch]


def _groups(request: Request) -> list[tuple[TokenGroup, tuple[int, ...]]]:
    """An item as groups that share a beginning, each with how many of an answer's last tokens are scored.

    One group if all the choices' tokens begin alike, however far into what is scored; else one a choice.
    """
    shared = _shared_length(request.ids)
    if shared:
        # Every answer keeps a token of its own.
        shared = min(shared, min(map(len, request.ids)) - 1)
        return [(TokenGroup(request.ids[0][:shared], [ids[shared:] for ids in request.ids]), request.scored)]
    return [
        (TokenGroup(ids[:-1], [ids[-1:]]), (scored,)) for ids, scored in zip(request.ids, request.scored, strict=True)
    ]


def _shared_length(sequences: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all sequences begin with; the first and the last in order differ as early as any two do."""
    first, last = min(sequences), max(sequences)
    return next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))


def _stream_sums(engine: Engine, groups: Sequence[tuple[TokenGroup, tuple[int, ...]]]) -> Tensor:
    """[N] log-likelihoods of all choices, by one forward over a stream without padding, every group's prompt once."""
    model = engine.model
    positions: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    start = choice = 0
    for group, scored in groups:
        prompt, own = len(group.prompt), start + len(group.prompt)
        for answer, number in zip(group.answers, scored, strict=True):
            # Where in the stream the tokens are that predict the last `number` of prompt and answer together.
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
    """[R] log-probabilities of tokens, from [U, width] hidden states of which each token is predicted by one.

    The logits of a few hidden states are alive at once.
    """
    head, shape = model.get_output_embeddings(), LogitShape.of(model.config)
    assert isinstance(head, torch.nn.Module)
    size = max(1, LOGITS_AT_ONCE // model.config.get_text_config().vocab_size)
    logps = torch.empty(len(targets), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
    for start in range(0, len(hidden), size):
        logits = shape(head(hidden[start : start + size]).to(logps.dtype))
        here = ((row >= start) & (row < start + size)).nonzero()[:, 0]
        own = row[here] - start
        logps[here] = logits[own, targets[here]] - logits.logsumexp(-1)[own]
    return logps


def _padded_sums(engine: Engine, groups: Sequence[tuple[TokenGroup, tuple[int, ...]]]) -> Tensor:
    """[N] log-likelihoods of all choices, by one forward with a padded row a choice."""
    model = engine.model
    sequences = [
        ([*group.prompt, *answer], number)
        for group, scored in groups
        for answer, number in zip(group.answers, scored, strict=True)
    ]
    width = max(len(ids) for ids, _ in sequences)
    # Causal attention doesn't look at padding on the right.
    inputs = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in sequences], device=model.device)
    is_scored = torch.tensor(
        [[len(ids) - number <= at < len(ids) for at in range(width)] for ids, number in sequences], device=model.device
    )
    logits = model(input_ids=inputs[:, :-1], use_cache=False).logits[is_scored[:, 1:]]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logps = logits.gather(1, inputs[is_scored][:, None])[:, 0] - logits.logsumexp(-1)
    return _sums(logps, is_scored.nonzero()[:, 0], len(sequences))


def _sums(logps: Tensor, owner: Tensor, number: int) -> Tensor:
    """[number] sums of each choice's tokens; in float64, for in float32 hundreds of nats end in the fifth decimal."""
    return logps.new_zeros(number, dtype=torch.float64).index_add(0, owner, logps.double())


def _record(request: Request, logps: Sequence[float]) -> LikelihoodRecord:
    item = request.item
    return LikelihoodRecord(
        task=item.task,
        item=item.item,
        factor=item.factor,
        category=item.category,
        cluster=item.cluster,
        prompt=item.prompt,
        choices=item.choices,
        logps=tuple(logps),
        bytes=tuple(len(choice.encode()) for choice in item.choices),
        correct=item.correct,
        truncated=request.truncated,
        labels=item.labels,
        scored=item.scored,
    )
