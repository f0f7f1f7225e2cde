"""Data and model that every side of the engine benchmark trains, and the count of floating point operations."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.word_tokenizer import tokenizer_of

VOCABULARY = 32_768


@dataclass(frozen=True)
class Workload:
    """Sizes of data and model.

    Attributes:
        prompt: mean length of a prompt in tokens.
        answer: mean length of an answer in tokens.
        spread: standard deviation of the logarithm of the lognormal lengths; 0 for equal lengths.
        answers: answers per prompt.
        prompts: number of prompts.
        hidden: width of the model, a multiple of 64.
        layers: number of layers of the model.
    """

    prompt: int = 139
    answer: int = 110
    spread: float = 0.6
    answers: int = 2
    prompts: int = 48
    hidden: int = 384
    layers: int = 10


def make_texts(workload: Workload, seed: int = 0) -> list[tuple[str, list[str]]]:
    """Prompts and their answers, of random words; each word is one token."""
    generator = np.random.default_rng(seed)

    def text(mean: float) -> str:
        size = generator.lognormal(np.log(mean) - workload.spread**2 / 2, workload.spread)
        return " ".join(f"t{word}" for word in generator.integers(2, VOCABULARY, int(np.clip(round(size), 4, 2000))))

    return [
        (text(workload.prompt) + " ", [text(workload.answer) for _ in range(workload.answers)])
        for _ in range(workload.prompts)
    ]


def as_pairs(texts: Sequence[tuple[str, list[str]]]) -> datasets.Dataset:
    """One row per pair of a prompt's answers, the format that all trainers accept."""
    return datasets.Dataset.from_list(
        [
            {"prompt": prompt, "chosen": answers[first], "rejected": answers[second]}
            for prompt, answers in texts
            for first in range(len(answers))
            for second in range(first + 1, len(answers))
        ]
    )


def as_groups(texts: Sequence[tuple[str, list[str]]]) -> datasets.Dataset:
    """One row per prompt with all its answers, a format that only our trainer accepts."""
    return datasets.Dataset.from_list(
        [
            {"prompt": prompt, "responses": answers, "helpfulness": [float(-place) for place in range(len(answers))]}
            for prompt, answers in texts
        ]
    )


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word, which adds only the end-of-sequence token."""
    vocabulary = ["<pad>", "</s>", *(f"t{word}" for word in range(2, VOCABULARY))]
    return tokenizer_of(vocabulary, unknown="<pad>", eos_token="</s>", pad_token="<pad>")


def make_model(workload: Workload, seed: int = 0) -> PreTrainedModel:
    """A random Llama; at 384 x 10 it has 28.3M weights, 12.6M of them in the head, which is tied to the embedding."""
    config = AutoConfig.for_model(
        "llama",
        vocab_size=VOCABULARY,
        hidden_size=workload.hidden,
        intermediate_size=workload.hidden * 8 // 3,
        num_hidden_layers=workload.layers,
        num_attention_heads=workload.hidden // 64,
        num_key_value_heads=max(1, workload.hidden // 192),
        head_dim=64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)


@dataclass(frozen=True)
class Passes:
    """Number of passes through the layers and the head in a step.

    ``layers_forward`` counts forward passes of the layers, including recomputation and a reference; ``head`` counts all
    products with the head's matrix. The cost of the layers' backward pass follows from the trained weights.
    """

    layers_forward: int
    head: int


@dataclass(frozen=True)
class Computed:
    """Work of a model: tokens through its layers, pairs of tokens in attention, and positions through the head."""

    tokens: float
    seen: float
    scored: float

    def __add__(self, other: Computed) -> Computed:
        return Computed(self.tokens + other.tokens, self.seen + other.seen, self.scored + other.scored)


def of_group(prompt: int, answers: Sequence[int], *, shared: bool) -> Computed:
    """Work for a prompt and its answers without padding, with the prompt once or before every answer."""
    copies = 1 if shared else len(answers)
    return Computed(
        tokens=prompt * copies + sum(answers),
        seen=copies * prompt**2 / 2 + sum(answer * prompt + answer**2 / 2 for answer in answers),
        scored=sum(answers),
    )


def of_rows(rows: int, width: int, scored: int) -> Computed:
    """Work for padded rows with causal attention."""
    return Computed(rows * width, rows * width**2 / 2, scored)


def flops(model: PreTrainedModel, computed: Computed, passes: Passes, trained: str) -> float:
    """FLOPs: two per weight and token for a forward pass, and for either half of a backward pass."""
    config: Any = model.config
    weights = sum(p.numel() for name, p in model.named_parameters() if "layers" in name and p.dim() == 2)
    training = sum(
        p.numel()
        for name, p in model.named_parameters()
        if "layers" in name and p.dim() == 2 and (trained == "all" or trained in name)
    )
    attention = 4 * config.num_attention_heads * config.head_dim * config.num_hidden_layers * computed.seen
    return (
        2 * computed.tokens * (weights * (passes.layers_forward + 1) + training)
        + 2 * config.vocab_size * config.hidden_size * computed.scored * passes.head
        + attention * (passes.layers_forward + 2)
    )
