"""Sampling from a transformers model, every answer from its own random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from bfpo.continuation import continued
from bfpo.generation.nucleus import sample_tokens
from bfpo.generation.protocol import Completion, Decoding, SampleRequest
from bfpo.models import end_tokens
from bfpo.thinking import PROMPT_TAIL, is_thinking_mark, split_thinking

Sample = Callable[[Sequence[SampleRequest], Sequence[list[int]], Decoding], list[Completion]]


def in_rooms(
    batch: Sequence[SampleRequest],
    prompts: Sequence[list[int]],
    context: int | None,
    decoding: Decoding,
    sample: Sample,
) -> list[Completion]:
    """One answer to every request, which ends at the model's context at the latest; a ``failure`` if there is no room.

    ``prompts`` are the requests' token ids, ``context`` is the largest number of tokens of prompt and answer (None
    without a limit), and ``sample`` samples for requests with equal room for an answer.
    """
    by_room: dict[int, list[int]] = {}
    for at, prompt in enumerate(prompts):
        room = decoding.max_new_tokens if context is None else min(decoding.max_new_tokens, context - len(prompt))
        by_room.setdefault(room, []).append(at)
    found: dict[int, Completion] = {}
    for room, rows in by_room.items():
        if room < 1:
            found |= {at: _no_room(len(prompts[at]), context) for at in rows}
        else:
            of_room = [batch[at] for at in rows], [prompts[at] for at in rows]
            found |= zip(rows, sample(*of_room, replace(decoding, max_new_tokens=room)), strict=True)
    return [found[at] for at in range(len(batch))]


def sample_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    seeds: Sequence[int | tuple[int, ...]],
    prompts: Sequence[list[int]],
    decoding: Decoding,
    before: Sequence[LogitsProcessor] = (),
) -> list[Completion]:
    """One sampled answer after the token ids of each prompt, without the model's generation defaults.

    Every answer has its own seed. The processors ``before`` change the logits before temperature and nucleus apply.
    """
    ends = end_tokens(model.generation_config, tokenizer)
    answers = sample_ids(model, tokenizer, seeds, prompts, decoding, before)
    return [_completion(tokenizer, prompt, ids, ends) for prompt, ids in zip(prompts, answers, strict=True)]


def sample_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    seeds: Sequence[int | tuple[int, ...]],
    prompts: Sequence[list[int]],
    decoding: Decoding,
    before: Sequence[LogitsProcessor] = (),
) -> list[list[int]]:
    """Token ids of the answers of `sample_answers`, up to and with the end token if there is one."""
    ends = end_tokens(model.generation_config, tokenizer)
    processors = LogitsProcessorList(before)
    if decoding.temperature > 0:
        processors.append(_SeededSampler(seeds, decoding))
    answers = continued(model, prompts, ends, decoding.max_new_tokens, processors)
    stops = [next((at for at, token in enumerate(ids, 1) if token in ends), len(ids)) for ids in answers]
    return [ids[:stop] for ids, stop in zip(answers, stops, strict=True)]


class _SeededSampler(LogitsProcessor):
    """Samples every row's next token from the row's own random numbers, by inverse transform sampling.

    transformers samples a whole batch from one random generator, so a row would depend on its position and neighbors.
    Here each row has its own seeded generator, which yields one uniform number per token.
    """

    def __init__(self, seeds: Sequence[int | tuple[int, ...]], decoding: Decoding) -> None:
        self._uniform = torch.from_numpy(
            np.stack([np.random.default_rng(seed).random(decoding.max_new_tokens) for seed in seeds])
        )
        self._decoding = decoding
        self._step = 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The scores, with an infinite one for the token sampled in each row."""
        # All at once: a copy for every token would wait for the device.
        self._uniform = self._uniform.to(scores.device)
        uniform = self._uniform[:, self._step]
        self._step += 1
        tokens = sample_tokens(scores, uniform, self._decoding.temperature, self._decoding.top_p)
        return scores.scatter_(1, tokens[:, None], torch.inf)


def _no_room(tokens: int, context: int | None) -> Completion:
    return Completion("", False, failure=f"the prompt has {tokens:,} tokens, and the model's context is {context:,}")


def _completion(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], ids: list[int], ends: Sequence[int]
) -> Completion:
    stop = next((at for at, token in enumerate(ids) if token in ends), None)
    thinking, text = read_answer(tokenizer, prompt, ids[:stop])
    return Completion(text, stop is None, len(ids) if stop is None else stop, thinking)


def read_answer(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], ids: Sequence[int]) -> tuple[str, str]:
    """The thinking and the answer in the token ids after a prompt's, without surrounding white space.

    Special tokens are left out, but for those that mark thinking (Magistral's).
    """
    marks = {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special and is_thinking_mark(token.content)
    }
    pieces: list[str] = []
    for is_mark, group in groupby(ids, marks.__contains__):
        run = list(group)
        pieces += [marks[token] for token in run] if is_mark else [_decoded(tokenizer, run)]
    before = tokenizer.decode(list(prompt[-PROMPT_TAIL:]), skip_special_tokens=False)
    thinking, text = split_thinking("".join(pieces), str(before))
    return thinking, text.strip()


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert isinstance(text, str)
    return text
