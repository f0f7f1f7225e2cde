"""The pairs and the model that every side of a benchmark is given."""

from __future__ import annotations

from dataclasses import dataclass

import datasets
import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 32_768


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of prompts and answers, lognormal with this spread of the logarithm."""

    prompt: float = 139
    answer: float = 110
    spread: float = 0.6


def make_pairs(count: int, lengths: Lengths, seed: int = 0) -> datasets.Dataset:
    """Pairs of random words; a word is a token."""
    generator = np.random.default_rng(seed)

    def text(mean: float) -> str:
        size = generator.lognormal(np.log(mean) - lengths.spread**2 / 2, lengths.spread)
        return " ".join(f"t{word}" for word in generator.integers(2, VOCABULARY, int(np.clip(size, 4, 900))))

    return datasets.Dataset.from_list(
        [
            {"prompt": text(lengths.prompt) + " ", "chosen": text(lengths.answer), "rejected": text(lengths.answer)}
            for _ in range(count)
        ]
    )


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the words, with an end of sequence and nothing else added."""
    words = {"<pad>": 0, "</s>": 1} | {f"t{word}": word for word in range(2, VOCABULARY)}
    model = Tokenizer(WordLevel(words, unk_token="<pad>"))
    model.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token="</s>", pad_token="<pad>")


def make_model(seed: int = 0) -> PreTrainedModel:
    """A random Llama of 28.3M weights, 12.6M of them in the head, which is also the embedding."""
    config = AutoConfig.for_model(
        "llama",
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=10,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)


def pair_flops(model: PreTrainedModel, prompt: int, answers: list[int], *, shared: bool, trained: str) -> float:
    """Floating point operations of one pair's training step without padding or recomputation.

    Two a weight and token for the forward, twice that for its backward (gradients of activations, and of weights
    where they train); the head on answer positions only; attention at every pair of tokens that see each other.
    """
    config = model.config
    weights = sum(p.numel() for name, p in model.named_parameters() if "layers" in name and p.dim() == 2)
    down = sum(p.numel() for name, p in model.named_parameters() if "down_proj" in name)
    head = config.vocab_size * config.hidden_size
    copies = 1 if shared else len(answers)
    tokens = prompt * copies + sum(answers)
    seen = copies * prompt**2 / 2 + sum(answer * prompt + answer**2 / 2 for answer in answers)
    attention = 4 * config.num_attention_heads * config.head_dim * config.num_hidden_layers * seen
    if trained == "all":
        return 3 * (2 * weights * tokens + 2 * head * sum(answers) + attention)
    return 2 * (2 * weights * tokens + 2 * head * sum(answers)) + 2 * down * tokens + 3 * attention
