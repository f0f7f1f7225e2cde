"""Safe RLHF's way on the microworld, with TRL: a reward model, a cost model, and GRPO with an adapted multiplier.

The policy maximizes reward - lambda * cost; lambda rises while the mean cost is above its limit and falls below it (Dai
et al., Safe RLHF, arXiv 2310.12773, equations 7 to 10, with GRPO in place of PPO). Usage:
lagrangian_rl.py START DATA OUTPUT --seed 0, where DATA has the quickstart's safety.jsonl and helpful.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Settings of the baseline.

    Attributes:
        epochs: epochs of the reward and of the cost model.
        model_learning_rate: their learning rate.
        steps: steps of the policy.
        prompts: prompts of a step.
        samples: answers to each prompt.
        learning_rate: learning rate of the policy.
        kl: weight of the divergence from the start.
        limit: largest mean cost, a probability that an answer is unsafe.
        first: lambda at the beginning.
        rate: step of lambda for each unit of excess cost.
    """

    epochs: float = 3.0
    model_learning_rate: float = 3e-4
    steps: int = 160
    prompts: int = 16
    samples: int = 8
    learning_rate: float = 1e-4
    kl: float = 0.1
    limit: float = 0.02
    first: float = 10.0
    rate: float = 1.0


@dataclass
class Multiplier(TrainerCallback):
    """Lambda, adapted after every step by the mean cost of the step's answers."""

    setting: Setting
    value: float = field(init=False)
    costs: list[float] = field(default_factory=list)
    path: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.value = self.setting.first

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move lambda by the excess of the cost."""
        excess = sum(self.costs) / len(self.costs) - self.setting.limit
        self.value = max(0.0, self.value + self.setting.rate * excess)
        self.path.append(self.value)
        self.costs.clear()


def read(path: Path) -> list[Row]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def chat(prompt: str, answer: str) -> list[dict[str, str]]:
    """A conversation of one turn."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def helpful_pairs(safety: Sequence[Row], helpful: Sequence[Row]) -> Dataset:
    """The more helpful answer of each safety pair, and the best and the worst answer to each helpful prompt."""
    rows = []
    for row in safety:
        better = row["better_response_id"]
        rows.append((row["prompt"], row[f"response_{better}"], row[f"response_{1 - better}"]))
    for row in helpful:
        ranked = sorted(zip(row["helpfulness"], row["responses"], strict=True))
        rows.append((row["prompt"], ranked[-1][1], ranked[0][1]))
    return Dataset.from_list([{"chosen": chat(p, a), "rejected": chat(p, b)} for p, a, b in rows])


def flagged(safety: Sequence[Row]) -> list[tuple[str, str, float]]:
    """Prompt, answer and whether it is unsafe, of every answer with a flag."""
    return [
        (row["prompt"], row[f"response_{at}"], float(not row[f"is_response_{at}_safe"]))
        for row in safety
        for at in (0, 1)
    ]


def rendered(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Any]) -> list[str]:
    """Conversations as texts."""
    return [str(tokenizer.apply_chat_template(one, tokenize=False)) for one in chats]


def scorer(start: Path) -> PreTrainedModel:
    """The start with a head that gives one number."""
    model = AutoModelForSequenceClassification.from_pretrained(start, num_labels=1)
    model.config.problem_type = "multi_label_classification"
    return model


def common(output: Path, seed: int) -> Row:
    """Training arguments of all three stages."""
    return {
        "output_dir": str(output), "seed": seed, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
        "logging_steps": 10, "use_cpu": not torch.accelerator.is_available(), "lr_scheduler_type": "cosine",
    }  # fmt: skip


def train_reward(start: Path, pairs: Dataset, tokenizer: PreTrainedTokenizerBase, setting: Setting, rest: Row) -> Any:
    """The reward model: Bradley-Terry on the more helpful answers."""
    trl: Any = import_module("trl")
    arguments = trl.RewardConfig(
        **rest, num_train_epochs=setting.epochs, learning_rate=setting.model_learning_rate,
        per_device_train_batch_size=64, max_length=128,
    )  # fmt: skip
    trainer = trl.RewardTrainer(scorer(start), args=arguments, train_dataset=pairs, processing_class=tokenizer)
    trainer.train()
    return trainer


def train_cost(
    start: Path, flags: Sequence[tuple[str, str, float]], tokenizer: PreTrainedTokenizerBase, setting: Setting,
    rest: Row,
) -> Trainer:  # fmt: skip
    """The cost model: the probability that an answer is unsafe."""
    texts = rendered(tokenizer, [chat(prompt, answer) for prompt, answer, _ in flags])
    encoded: Any = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=128)
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": [unsafe]}
        for ids, mask, (_, _, unsafe) in zip(encoded["input_ids"], encoded["attention_mask"], flags, strict=True)
    ]
    arguments = TrainingArguments(
        **rest, num_train_epochs=setting.epochs, learning_rate=setting.model_learning_rate,
        per_device_train_batch_size=64,
    )  # fmt: skip
    trainer = Trainer(
        scorer(start), arguments, DataCollatorWithPadding(tokenizer), Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    return trainer


@torch.no_grad()
def scores(model: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> torch.Tensor:
    """[N] the number that a reward or cost model gives to each text."""
    model.eval()
    encoded: Any = tokenizer(list(texts), add_special_tokens=False, padding=True, return_tensors="pt")
    return model(**encoded.to(model.device)).logits[:, 0].float().cpu()


def train_policy(
    start: Path, prompts: Sequence[str], models: tuple[Any, Any], tokenizer: PreTrainedTokenizerBase,
    setting: Setting, rest: Row,
) -> tuple[Any, Multiplier]:  # fmt: skip
    """GRPO on reward - lambda * cost."""
    trl: Any = import_module("trl")
    reward, cost = models
    multiplier = Multiplier(setting)

    def objective(prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float]:
        texts = rendered(tokenizer, [[*one, *answer] for one, answer in zip(prompts, completions, strict=True)])
        unsafe = scores(cost, tokenizer, texts).sigmoid()
        multiplier.costs.append(float(unsafe.mean()))
        return (scores(reward, tokenizer, texts) - multiplier.value * unsafe).tolist()

    arguments = trl.GRPOConfig(
        **rest, max_steps=setting.steps, learning_rate=setting.learning_rate, beta=setting.kl,
        per_device_train_batch_size=setting.prompts * setting.samples, num_generations=setting.samples,
        max_completion_length=64, temperature=1.0, scale_rewards="batch", bf16=False,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": prompt}]} for prompt in prompts])
    trainer = trl.GRPOTrainer(
        str(start), objective, arguments, rows, processing_class=tokenizer, callbacks=[multiplier]
    )
    trainer.train()
    return trainer, multiplier


def run(start: Path, data: Path, output: Path, seed: int, setting: Setting) -> Row:
    """All three stages; writes the policy, and returns what they took."""
    safety, helpful = read(data / "safety.jsonl"), read(data / "helpful.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(start)
    pairs, flags = helpful_pairs(safety, helpful), flagged(safety)
    rest = common(output, seed)
    seconds: dict[str, float] = {}

    def timed(name: str, made: Any) -> Any:
        seconds[name] = time.process_time() - sum(seconds.values())
        return made

    timed("before", None)
    reward = timed("reward model", train_reward(start, pairs, tokenizer, setting, rest))
    cost = timed("cost model", train_cost(start, flags, tokenizer, setting, rest))
    prompts = [row["prompt"] for row in (*safety, *helpful)]
    random.Random(seed).shuffle(prompts)
    policy, multiplier = timed(
        "policy", train_policy(start, prompts, (reward.model, cost.model), tokenizer, setting, rest)
    )
    policy.save_model(str(output))
    sampled = next(one["num_tokens"] for one in reversed(policy.state.log_history) if "num_tokens" in one)
    judged = [chat(prompt, answer) for prompt, answer, _ in flags]
    compared = [*pairs["chosen"], *pairs["rejected"]]
    return {
        "cpu_seconds": seconds,
        "sampled_answers": setting.steps * setting.prompts * setting.samples,
        "tokens": sampled + setting.epochs * count_tokens(tokenizer, [*judged, *compared]),
        "lambda": multiplier.path,
    }


def count_tokens(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Any]) -> int:
    """Tokens of all conversations."""
    return sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in rendered(tokenizer, chats))


def main() -> None:
    """Run the baseline and write its record beside the policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("start", "data", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], help="settings, as name=value")
    given = parser.parse_args()
    kinds = {name: type(value) for name, value in vars(Setting()).items()}
    options = {name: kinds[name](value) for name, value in (one.split("=") for one in given.set)}
    record = run(given.start, given.data, given.output, given.seed, Setting(**options))
    (given.output / "lagrangian.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
