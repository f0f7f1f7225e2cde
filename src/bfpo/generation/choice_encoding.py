"""Token ids of choices and their prompts, exactly as lm-eval's HFLM encodes them.

Follows lm-eval function by function (lm-eval 0.4.13): ``Task.construct_requests`` for the texts,
``TemplateLM.loglikelihood`` and ``_encode_pair`` for the ids, ``_loglikelihood_tokens`` for truncation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bfpo.errors import BfpoError
from bfpo.generation.protocol import ChoiceRequest, as_messages
from bfpo.models import context_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EncodedChoices:
    """A request as token ids.

    Attributes:
        key: key of the request.
        ids: tokens of context and scored text for each choice, truncated at the beginning to fit.
        scored: number of scored tokens at the end of each choice.
        truncated: whether any choice was truncated.
    """

    key: str
    ids: tuple[tuple[int, ...], ...]
    scored: tuple[int, ...]
    truncated: bool


def encode_choices(
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[ChoiceRequest],
    *,
    chat: bool,
    max_length: int,
    system_prompt: str | None = None,
) -> list[EncodedChoices]:
    """Encode requests, in a few batched calls of the tokenizer.

    Args:
        tokenizer: the model's tokenizer.
        requests: the requests.
        chat: whether to render the context as a user message by the chat template, without delimiter.
        max_length: largest number of tokens that the model can read; longer texts lose their beginning.
        system_prompt: system message before the user's.

    Raises:
        BfpoError: if there is no chat template, or a scored text is empty or alone exceeds ``max_length``.
    """
    if chat and not tokenizer.chat_template:
        raise BfpoError("the tokenizer has no chat template: score likelihoods without one")
    if system_prompt and not chat:
        raise BfpoError("a system prompt needs the chat template")
    pairs = [_texts(request, "" if chat else request.delimiter) for request in requests]
    contexts = list(dict.fromkeys(context for own in pairs for context, _ in own))
    rendered = dict(zip(contexts, _render(tokenizer, contexts, system_prompt) if chat else contexts, strict=True))
    split = [[_move_spaces(rendered[context], scored) for context, scored in own] for own in pairs]
    ids = _Encoder(tokenizer)
    ids.read([context for own in split for context, _ in own if context])
    ids.read([context + scored for own in split for context, scored in own if context])
    ids.read([scored for own in split for context, scored in own if not context], special=False)
    return [
        _encoded(request.key, [ids.pair(*pair) for pair in own], max_length)
        for request, own in zip(requests, split, strict=True)
    ]


def _texts(request: ChoiceRequest, delimiter: str) -> list[tuple[str, str]]:
    """Context and scored text of each choice."""
    if request.scored == "prompt":
        return [(choice, delimiter + request.prompt) for choice in request.choices]
    return [(request.prompt, delimiter + choice) for choice in request.choices]


def _render(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], system_prompt: str | None) -> list[str]:
    conversations = [as_messages(text, system_prompt or None) for text in texts]
    rendered: Any = tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True)
    return rendered


def _move_spaces(context: str, scored: str) -> tuple[str, str]:
    """Move spaces at the context's end to the scored text, whose first token they belong to."""
    kept = context.rstrip()
    # A context of only spaces stays, so that some token precedes the scored text.
    return (kept, context[len(kept) :] + scored) if kept else (context, scored)


class _Encoder:
    """Token ids of texts, each text encoded once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        prefix: Any = eos if bos is None else bos
        if prefix is None:
            raise BfpoError("the tokenizer has neither a beginning- nor an end-of-sequence token: set its eos_token")
        self.prefix: int = prefix
        self._bos_text: Any = tokenizer.decode(prefix)
        self._ids: dict[tuple[str, bool], list[int]] = {}

    def read(self, texts: Sequence[str], special: bool = True) -> None:
        """Encode texts; with ``special``, prepend the special token to those that lack it."""
        for add in (True, False):
            chosen = [text for text in dict.fromkeys(texts) if self._adds(text, special) == add]
            if chosen:
                encoded: Any = self.tokenizer(chosen, add_special_tokens=add, return_attention_mask=False)["input_ids"]
                self._ids.update(zip(((text, special) for text in chosen), encoded, strict=True))

    def pair(self, context: str, scored: str) -> tuple[list[int], list[int]]:
        """Ids of the context and of the scored text."""
        if context:
            before = self._ids[context, True]
            return before, self._ids[context + scored, True][len(before) :]
        ids = self._ids[scored, False]
        return (ids[:1], ids[1:]) if ids[:1] == [self.prefix] else ([self.prefix], ids)

    def _adds(self, text: str, special: bool) -> bool:
        return special and not text.startswith(self._bos_text)


def _encoded(key: str, pairs: Sequence[tuple[list[int], list[int]]], max_length: int) -> EncodedChoices:
    for _, scored in pairs:
        if not 0 < len(scored) <= max_length:
            problem = "has no token" if not scored else f"has {len(scored)} tokens and the model reads {max_length}"
            raise BfpoError(f"item {key}: a scored text {problem}; leave the item out")
    # The last token is predicted but not read, so one more fits.
    return EncodedChoices(
        key=key,
        ids=tuple(tuple((before + scored)[-(max_length + 1) :]) for before, scored in pairs),
        scored=tuple(len(scored) for _, scored in pairs),
        truncated=any(len(before) + len(scored) > max_length + 1 for before, scored in pairs),
    )


def longest_input(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Number of tokens that a model can read, as in lm-eval (``lm_eval.models.utils.resolve_max_length``)."""
    context = context_length(config)
    if context is not None:
        return context
    unset = int(1e30)  # transformers' value for a tokenizer without a length
    return int(tokenizer.model_max_length) if tokenizer.model_max_length != unset else 2048
