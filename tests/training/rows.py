"""Rows of preferences over a closed vocabulary, and a tokenizer that knows it."""

import random

import datasets

from support.word_tokenizer import tokenizer_of

WORDS = [f"w{number}" for number in range(60)]


def word_tokenizer():
    vocabulary = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
    return tokenizer_of(vocabulary, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


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
