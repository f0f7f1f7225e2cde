"""A simple tokenizer: every word (or letter) of a closed vocabulary is a token."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import PreTokenizer, WhitespaceSplit
from transformers import PreTrainedTokenizerFast


def tokenizer_of(
    vocabulary: Iterable[str], unknown: str = "<unk>", split: PreTokenizer | None = None, **special: str | list[str]
) -> PreTrainedTokenizerFast:
    """A tokenizer whose ids are the places of words in the vocabulary.

    Args:
        vocabulary: all tokens, the special ones among them.
        unknown: the token of every other word.
        split: what cuts text into words; by default white space does.
        special: names of special tokens, such as ``eos_token="</s>"``.
    """
    model = Tokenizer(WordLevel({token: number for number, token in enumerate(vocabulary)}, unk_token=unknown))
    model.pre_tokenizer = split or WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=model, **special)
