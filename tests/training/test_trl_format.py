"""Compatibility with TRL: its data sets as they are, and its argument names."""

import datasets
import pytest
import torch

from bfpo import BFPOConfig, BFPOTrainer
from bfpo.preferences.schema import PreferenceDataError
from models import tiny_llama
from training.rows import pairs, word_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] == 'user' and ' w1 ' or ' w2 ' }}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} w2 {% endif %}"
)


def tokenizer():
    made = word_tokenizer()
    made.chat_template = TEMPLATE
    return made


def explicit(row):
    return {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
    }


def implicit(row):
    made = explicit(row)
    return {name: made["prompt"] + made[name] for name in ("chosen", "rejected")}


def train(tmp_path, data, made, **changes):
    arguments = BFPOConfig(
        output_dir=str(tmp_path), beta=0.1, learning_rate=1e-3, max_steps=2, per_device_train_batch_size=2,
        gradient_accumulation_steps=2, max_length=64, disable_dropout=True, gradient_checkpointing=True,
        logging_steps=1, save_strategy="no", use_cpu=True, disable_tqdm=True, report_to="none", **changes,
    )  # fmt: skip
    trainer = BFPOTrainer(
        model=tiny_llama(dtype=torch.float64), args=arguments, train_dataset=data, processing_class=made
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("loss_type", ["dpo", "ipo"])
def test_messages_with_and_without_a_prompt_are_the_same_data(tmp_path, loss_type):
    rows = list(pairs(8, safety=False))
    runs = [
        train(
            tmp_path / str(number),
            datasets.Dataset.from_list([shape(row) for row in rows]),
            tokenizer(),
            loss_type=loss_type,
        )
        for number, shape in enumerate((explicit, implicit))
    ]
    one, other = (run.train_dataset.remove_columns("row").to_list() for run in runs)
    assert one == other
    assert runs[0].plan.batch_size == 4
    losses = [[entry["loss"] for entry in run.state.log_history if "loss" in entry] for run in runs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


def test_metrics_have_trls_names(tmp_path):
    log = train(tmp_path, pairs(8, safety=False), word_tokenizer(), loss_type="dpo").state.log_history[0]
    assert {
        "rewards/chosen",
        "rewards/rejected",
        "rewards/accuracies",
        "rewards/margins",
        "logps/chosen",
        "logps/rejected",
    } <= set(log)


def test_every_problem_of_a_data_set_of_ones_own_is_reported_at_once(tmp_path):
    rows = [row | {"chosen": None} if at in (2, 5) else row for at, row in enumerate(pairs(8, safety=False))]
    with pytest.raises(PreferenceDataError) as caught:
        train(tmp_path, datasets.Dataset.from_list(rows), word_tokenizer(), loss_type="dpo")
    assert [problem.row for problem in caught.value.problems] == [3, 6]
