"""From items to token ids, exactly as lm-eval's HFLM does it: the only text handling of the likelihood runner.

Followed function by function (lm-eval 0.4.13): ``Task.construct_requests`` for what is asked,
``TemplateLM.loglikelihood`` and ``_encode_pair`` for the ids, ``_loglikelihood_tokens`` for truncation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bfpo.errors import BfpoError
from bfpo.safehelp.items import ChoiceItem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Request:
    """An item as token ids.

    Attributes:
        item: what is asked.
        ids: for each choice, the tokens of what precedes and what is scored, cut at their beginning to fit.
        scored: for each choice, how many of the last tokens are scored.
        truncated: whether the beginning of any choice's tokens was cut.
    """

    item: ChoiceItem
    ids: tuple[tuple[int, ...], ...]
    scored: tuple[int, ...]
    truncated: bool


def encode_items(
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[ChoiceItem],
    *,
    chat: bool,
    max_length: int,
    system_prompt: str | None = None,
) -> list[Request]:
    """Encode items, all texts in a few calls of the tokenizer.

    Args:
        tokenizer: the model's.
        items: what is asked.
        chat: whether what precedes goes through the chat template, as a user's message; the delimiter is then left
            out.
        max_length: tokens that the model can read; longer texts lose their beginning.
        system_prompt: a system message before the user's.

    Raises:
        BfpoError: if there is no chat template, or what is scored is empty or alone fills ``max_length``.
    """
    if chat and not tokenizer.chat_template:
        raise BfpoError("the tokenizer has no chat template: score likelihoods without one")
    if system_prompt and not chat:
        raise BfpoError("a system prompt needs the chat template")
    pairs = [_texts(item, "" if chat else item.delimiter) for item in items]
    contexts = list(dict.fromkeys(context for of_item in pairs for context, _ in of_item))
    rendered = dict(zip(contexts, _render(tokenizer, contexts, system_prompt) if chat else contexts, strict=True))
    split = [[_move_spaces(rendered[context], ending) for context, ending in of_item] for of_item in pairs]
    ids = _Encoder(tokenizer)
    ids.read([context for of_item in split for context, _ in of_item if context])
    ids.read([context + ending for of_item in split for context, ending in of_item if context])
    ids.read([ending for of_item in split for context, ending in of_item if not context], special=False)
    return [
        _request(item, [ids.pair(*pair) for pair in of_item], max_length)
        for item, of_item in zip(items, split, strict=True)
    ]


def _texts(item: ChoiceItem, delimiter: str) -> list[tuple[str, str]]:
    """For each choice, what precedes and what is scored."""
    if item.scored == "prompt":
        return [(choice, delimiter + item.prompt) for choice in item.choices]
    return [(item.prompt, delimiter + choice) for choice in item.choices]


def _render(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], system_prompt: str | None) -> list[str]:
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    conversations = [[*system, {"role": "user", "content": text}] for text in texts]
    rendered: Any = tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True)
    return rendered


def _move_spaces(context: str, ending: str) -> tuple[str, str]:
    """Spaces at the context's end belong to the first token of what follows."""
    kept = context.rstrip()
    # Without anything else the context stays as it is: nothing would precede what is scored.
    return (kept, context[len(kept) :] + ending) if kept else (context, ending)


class _Encoder:
    """Token ids of texts, each read once."""

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
        """Encode texts; with ``special``, those that don't begin with the special token already get it."""
        for add in (True, False):
            chosen = [text for text in dict.fromkeys(texts) if self._adds(text, special) == add]
            if chosen:
                encoded: Any = self.tokenizer(chosen, add_special_tokens=add, return_attention_mask=False)["input_ids"]
                self._ids.update(zip(((text, special) for text in chosen), encoded, strict=True))

    def pair(self, context: str, ending: str) -> tuple[list[int], list[int]]:
        """Ids of what precedes and of what is scored."""
        if context:
            before = self._ids[context, True]
            return before, self._ids[context + ending, True][len(before) :]
        scored = self._ids[ending, False]
        return (scored[:1], scored[1:]) if scored[:1] == [self.prefix] else ([self.prefix], scored)

    def _adds(self, text: str, special: bool) -> bool:
        return special and not text.startswith(self._bos_text)


def _request(item: ChoiceItem, pairs: Sequence[tuple[list[int], list[int]]], max_length: int) -> Request:
    for _, scored in pairs:
        if not 0 < len(scored) <= max_length:
            what = "has no token" if not scored else f"has {len(scored)} tokens and the model reads {max_length}"
            raise BfpoError(f"task {item.task!r}, item {item.item!r}: what is scored {what}; leave the item out")
    # The last token is predicted but never read, so one more fits.
    return Request(
        item=item,
        ids=tuple(tuple((before + scored)[-(max_length + 1) :]) for before, scored in pairs),
        scored=tuple(len(scored) for _, scored in pairs),
        truncated=any(len(before) + len(scored) > max_length + 1 for before, scored in pairs),
    )


def longest_input(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that a model can read, found where lm-eval looks (``lm_eval.models.utils.resolve_max_length``)."""
    text = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        length = getattr(text, name, None)
        if length is not None:
            return int(length)
    unset = int(1e30)  # what transformers writes where a tokenizer names no length
    return int(tokenizer.model_max_length) if tokenizer.model_max_length != unset else 2048
