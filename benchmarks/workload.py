"""Data and model that every side of the engine benchmark trains, and the count of floating point operations."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.word_tokenizer import tokenizer_of

# Public shapes of models by name; "" is a Llama of the workload's own width and depth.
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "model_type": "llama",
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "qwen2.5-1.5b": {
        "model_type": "qwen2",
        "vocab_size": 151_936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "llama-2-7b": {
        "model_type": "llama",
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "tie_word_embeddings": False,
    },
}
# Batches of a large data set that transformers sorts by length together (`get_length_grouped_indices`).
SORTED_TOGETHER = 50


@dataclass(frozen=True)
class Workload:
    """Sizes of data and model.

    Attributes:
        prompt: mean length of a prompt in tokens.
        answer: mean length of an answer in tokens.
        spread: standard deviation of the logarithm of the lognormal lengths; 0 for equal lengths.
        answers: answers per prompt.
        prompts: number of prompts.
        batches: number of batches of pairs, which takes the place of the number of prompts; see `make_batches`.
        hidden: width of the model, a multiple of 64.
        layers: number of layers of the model.
        model: name of a shape, which takes the place of width and layers.
        folder: folder of a real model of that shape, with its tokenizer and chat template; "" for random weights.
        data: file of real pairs (prompt, chosen, rejected), which takes the place of all lengths; needs a folder.
    """

    prompt: int = 139
    answer: int = 110
    spread: float = 0.6
    answers: int = 2
    prompts: int = 48
    batches: int = 0
    hidden: int = 384
    layers: int = 10
    model: str = ""
    folder: str = ""
    data: str = ""

    @property
    def shape(self) -> dict[str, Any]:
        """The configuration's sizes."""
        if self.model:
            return SHAPES[self.model]
        return {
            "model_type": "llama",
            "vocab_size": 32_768,
            "hidden_size": self.hidden,
            "intermediate_size": self.hidden * 8 // 3,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden // 64,
            "num_key_value_heads": max(1, self.hidden // 192),
            "head_dim": 64,
            "tie_word_embeddings": True,
        }


def make_texts(workload: Workload, seed: int = 0) -> list[tuple[str, list[str]]]:
    """Prompts and their answers, of random words; each word is one token.

    Real pairs are written in the same words, one for each token of the real model's own tokenizer, so that every side
    trains on the same tokens.
    """
    if workload.data:
        return real_texts(workload, seed)
    generator, vocabulary = np.random.default_rng(seed), workload.shape["vocab_size"]

    def text(mean: float) -> str:
        size = generator.lognormal(np.log(mean) - workload.spread**2 / 2, workload.spread)
        return " ".join(f"t{word}" for word in generator.integers(2, vocabulary, int(np.clip(round(size), 4, 2000))))

    return [
        (text(workload.prompt) + " ", [text(workload.answer) for _ in range(workload.answers)])
        for _ in range(workload.prompts)
    ]


def make_batches(workload: Workload, size: int) -> list[tuple[str, list[str]]]:
    """The workload's batches of pairs, each of pairs of about one length.

    They are what grouping by length makes of a large data set; in a set of a few batches, transformers would group
    nothing. Of the fifty batches that it sorts together, evenly spaced ones are taken, so that all lengths occur as
    often as among pairs drawn at random.
    """
    rows = make_texts(replace(workload, prompts=SORTED_TOGETHER * size, batches=0))
    rows.sort(key=lambda row: len(row[0].split()) + max(len(answer.split()) for answer in row[1]), reverse=True)
    places = [SORTED_TOGETHER * (2 * number + 1) // (2 * workload.batches) for number in range(workload.batches)]
    return [row for place in places for row in rows[place * size : (place + 1) * size]]


def real_texts(workload: Workload, seed: int) -> list[tuple[str, list[str]]]:
    """Real pairs, drawn from the file, as words."""
    tokenizer = AutoTokenizer.from_pretrained(workload.folder)
    rows: Any = datasets.load_dataset("json", data_files=workload.data, split="train")
    rows = rows.shuffle(seed=seed).select(range(workload.prompts))

    def words(ids: Sequence[int]) -> str:
        # The first two numbers are the word tokenizer's own.
        return " ".join(f"t{max(2, number)}" for number in ids)

    texts: list[tuple[str, list[str]]] = []
    for row in rows:
        messages = [{"role": "user", "content": row["prompt"]}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        answers = [tokenizer(row[name])["input_ids"] for name in ("chosen", "rejected")]
        texts.append((words(prompt) + " ", [words(answer) for answer in answers]))
    return texts


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


def make_tokenizer(workload: Workload) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word, which adds only the end-of-sequence token."""
    vocabulary = ["<pad>", "</s>", *(f"t{word}" for word in range(2, workload.shape["vocab_size"]))]
    return tokenizer_of(vocabulary, unknown="<pad>", eos_token="</s>", pad_token="<pad>")


def make_model(
    workload: Workload, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, **changes: Any
) -> PreTrainedModel:
    """A random model, made on the device; at 384 x 10 a Llama of 28.3M weights, 12.6M of them in the tied head.

    With a folder it is the real model there.
    """
    if workload.folder:
        model: Any = AutoModelForCausalLM.from_pretrained(workload.folder, dtype=dtype, **changes)
        return model.to(device)
    sizes = workload.shape | changes
    config = AutoConfig.for_model(
        sizes["model_type"],
        **{name: value for name, value in sizes.items() if name != "model_type"},
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


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


def flops(model: PreTrainedModel, computed: Computed, passes: Passes) -> float:
    """FLOPs: two per weight and token for a forward pass, and for either half of a backward pass."""
    config: Any = model.config
    matrices = [p for name, p in model.named_parameters() if "layers" in name and p.dim() == 2]
    weights = sum(map(_size, matrices))
    training = sum(_size(p) for p in matrices if p.requires_grad)
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return (
        2 * computed.tokens * (weights * (passes.layers_forward + 1) + training)
        + 2 * config.vocab_size * config.hidden_size * computed.scored * passes.head
        + 4 * width * config.num_hidden_layers * computed.seen * (passes.layers_forward + 2)
    )


def _size(parameter: Any) -> int:
    """Number of weights, which are packed where they have 4 bits."""
    packed = getattr(parameter, "quant_state", None)
    return parameter.numel() if packed is None else packed.shape.numel()
