"""Rows of preferences over a closed vocabulary, and a tokenizer that knows it."""

import random

import datasets
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

WORDS = [f"w{number}" for number in range(60)]


def word_tokenizer():
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3} | {word: 4 + i for i, word in enumerate(WORDS)}
    model = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def words(generator, most):
    return " ".join(generator.choice(WORDS) for _ in range(generator.randint(1, most)))


def pairs(count, seed=0, safety=True):
    generator = random.Random(seed)
    rows = [
        {"prompt": words(generator, 6) + " ", "chosen": words(generator, 9), "rejected": words(generator, 9) + " w0"}
        | ({"chosen_is_safe": generator.random() < 0.5, "rejected_is_safe": generator.random() < 0.5} if safety else {})
        for _ in range(count)
    ]
    return datasets.Dataset.from_list(rows)
