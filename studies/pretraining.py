"""Pretraining of the microworld's model: tokenizer, weights, and a record of how they were made."""

from __future__ import annotations

import json
import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bfpo.microworld.answers import AnswerKind, write_answer
from bfpo.microworld.data import conversation, draw, draw_requests
from bfpo.microworld.grammar import Kind
from bfpo.microworld.worlds import A, F, P, R, V, W

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
IGNORED = -100
# The model mostly complies, harmful or not, but has seen refusals.
PROMPTS: dict[Kind, float] = {"benign": 0.35, "borderline": 0.35, "harmful": 0.3}
ANSWERS: dict[Kind, dict[AnswerKind, float]] = {
    "benign": {F: 0.66, P: 0.17, V: 0.09, W: 0.05, R: 0.015, A: 0.015},
    "borderline": {F: 0.64, P: 0.17, V: 0.09, W: 0.05, R: 0.025, A: 0.025},
    "harmful": {F: 0.44, P: 0.16, V: 0.06, W: 0.04, R: 0.15, A: 0.15},
}


@dataclass(frozen=True)
class Pretraining:
    """The settings that determine the model.

    Attributes:
        seed: random seed for corpus, weights and order.
        conversations: size of the corpus.
        steps: optimizer steps.
        batch_size: conversations per step.
        learning_rate: peak learning rate, after a linear warm-up over a twentieth of the steps and before a cosine
            decay to 0.
        vocabulary: number of tokens.
        hidden: width of the model.
        layers: number of layers.
    """

    seed: int = 0
    conversations: int = 100_000
    steps: int = 1000
    batch_size: int = 96
    learning_rate: float = 3e-3
    vocabulary: int = 1024
    hidden: int = 128
    layers: int = 4


def pretraining_set(count: int, seed: int) -> list[dict[str, Any]]:
    """The pretraining data, as conversations; their answers comply with harmful questions, too."""
    rng = random.Random(f"pretraining {seed}")
    return [
        {"messages": conversation(request, write_answer(request, draw(ANSWERS[request.kind], rng), rng))}
        for request in draw_requests(PROMPTS, "train", count, rng)
    ]


def pretrain(folder: Path, plan: Pretraining, report: Callable[[int, float], None] | None = None) -> float:
    """Train tokenizer and model from scratch and save both with ``pretraining.json``; returns the final loss.

    Args:
        folder: folder to save to.
        plan: sizes and seed.
        report: called with step and loss every 50 steps.
    """
    started = time.monotonic()
    conversations = [row["messages"] for row in pretraining_set(plan.conversations, plan.seed)]
    tokenizer = train_tokenizer(conversations, plan.vocabulary)
    sequences, answers_at = _encode(tokenizer, conversations)
    torch.manual_seed(plan.seed)
    model = new_model(plan)
    losses = _train(model, sequences, answers_at, plan, report)
    final = sum(losses[-50:]) / len(losses[-50:])
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {
        "plan": asdict(plan),
        "parameters": model.num_parameters(),
        "tokens": sum(map(len, sequences)),
        "final_loss": round(final, 4),
        "seconds": round(time.monotonic() - started, 1),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")}
        | {"python": platform.python_version()},
        "command": "make pretrain",
    }
    (folder / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return final


def train_tokenizer(conversations: Sequence[Sequence[dict[str, str]]], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, which covers any text, and give it a chat template."""
    model = Tokenizer(BPE())
    model.pre_tokenizer = ByteLevel(add_prefix_space=False)
    model.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (message["content"] for conversation in conversations for message in conversation)
    model.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=list(SPECIAL_TOKENS[3:]),
        model_max_length=256,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def new_model(plan: Pretraining) -> LlamaForCausalLM:
    """A Llama of the planned size with random weights and tied embeddings."""
    config = LlamaConfig(
        vocab_size=plan.vocabulary,
        hidden_size=plan.hidden,
        intermediate_size=plan.hidden * 11 // 4,
        num_hidden_layers=plan.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=SPECIAL_TOKENS.index("<pad>"),
        bos_token_id=SPECIAL_TOKENS.index("<s>"),
        eos_token_id=SPECIAL_TOKENS.index("</s>"),
    )
    return LlamaForCausalLM(config)


def _encode(
    tokenizer: PreTrainedTokenizerFast, conversations: Sequence[Sequence[dict[str, str]]]
) -> tuple[list[list[int]], list[int]]:
    """Token ids of every conversation, and the position at which its answer starts."""
    rendered: Any = tokenizer.apply_chat_template([list(turns) for turns in conversations], return_dict=False)
    sequences: list[list[int]] = rendered
    assistant = SPECIAL_TOKENS.index("<|assistant|>")
    return sequences, [ids.index(assistant) + 1 for ids in sequences]


def _train(
    model: LlamaForCausalLM,
    sequences: list[list[int]],
    answers_at: list[int],
    plan: Pretraining,
    report: Callable[[int, float], None] | None,
) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
    warm_up = max(1, plan.steps // 20)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warm_up, total_iters=warm_up),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, plan.steps - warm_up)),
        ],
        milestones=[warm_up],
    )
    generator = torch.Generator().manual_seed(plan.seed)
    losses = []
    model.train()
    for step in range(plan.steps):
        rows = torch.randint(len(sequences), (plan.batch_size,), generator=generator).tolist()
        ids, mask, labels = _batch([sequences[row] for row in rows], [answers_at[row] for row in rows])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if report and (step + 1) % 50 == 0:
            report(step + 1, losses[-1])
    return losses


def _batch(sequences: Sequence[Sequence[int]], answers_at: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Padded ids, mask, and labels on the answers only."""
    width = max(map(len, sequences))
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for row, (sequence, start) in enumerate(zip(sequences, answers_at, strict=True)):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
        labels[row, start : len(sequence)] = ids[row, start : len(sequence)]
    return ids, mask, labels
