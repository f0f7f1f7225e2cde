"""Compatibility with TRL: its data sets as they are, and its argument names."""

import json

import datasets
import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

from bfpo import BFPOConfig, BFPOTrainer, load_preferences
from bfpo.errors import BfpoError
from bfpo.models import uniform_length
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


def train(tmp_path, data, made, model=None, **changes):
    changes = {"beta": None if changes["loss_type"] == "sft" else 0.1, **changes}
    arguments = BFPOConfig(
        output_dir=str(tmp_path), learning_rate=1e-3, max_steps=2, per_device_train_batch_size=2,
        gradient_accumulation_steps=2, max_length=64, disable_dropout=True, gradient_checkpointing=True,
        logging_steps=1, save_strategy="no", use_cpu=True, disable_tqdm=True, report_to="none", **changes,
    )  # fmt: skip
    trainer = BFPOTrainer(
        model=model or tiny_llama(dtype=torch.float64), args=arguments, train_dataset=data, processing_class=made
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


def test_a_column_named_row_skips_no_check(tmp_path):
    rows = [row | {"row": at} | ({"chosen": None} if at == 5 else {}) for at, row in enumerate(pairs(8, safety=False))]
    with pytest.raises(PreferenceDataError, match="row 6, column 'chosen': it is null"):
        train(tmp_path, datasets.Dataset.from_list(rows), word_tokenizer(), loss_type="dpo")


def test_loaded_rows_that_were_changed_are_checked_again(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs(8)))
    rows = load_preferences(str(path)).map(lambda row: row | {"chosen_is_safe": 7.0 if row["row"] == 4 else 1.0})
    with pytest.raises(PreferenceDataError, match="row 4, column 'chosen_is_safe'"):
        train(tmp_path, rows, word_tokenizer(), loss_type="dpo")


def test_answers_end_where_the_model_stops(tmp_path):
    made = tokenizer()
    made.chat_template = TEMPLATE.replace("eos_token", "' w59 '")
    model = tiny_llama(dtype=torch.float64)
    model.generation_config.eos_token_id = [2, made.convert_tokens_to_ids("w59")]
    data = datasets.Dataset.from_list([explicit(row) for row in pairs(8, safety=False)])
    run = train(tmp_path, data, made, loss_type="dpo", model=model)
    endings = [answer[-1] for row in run.train_dataset for answer in row["answer_ids"]]
    assert set(endings) == {made.convert_tokens_to_ids("w59")}
    assert run.training_data.counts["train_dataset"].added_ends == 0


def test_rows_beyond_longrope_s_first_positions_are_refused(tmp_path):
    """There, a row's scores would depend on the rows beside it."""
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 16,
            "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}  # fmt: skip
    config = Phi3Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, original_max_position_embeddings=16, rope_parameters=rope,
        pad_token_id=0,
    )  # fmt: skip
    assert uniform_length(config) == 16
    rows = list(pairs(8, safety=False))
    rows[3] = rows[3] | {"chosen": " ".join(["w7"] * 40)}
    words = r"row 4: prompt and answer have \d+ tokens, and above 16 its rotary .* set max_length to 16 or less"
    with pytest.raises(BfpoError, match=words):
        train(
            tmp_path, datasets.Dataset.from_list(rows), word_tokenizer(), loss_type="dpo", model=Phi3ForCausalLM(config)
        )


def test_answers_to_other_prompts_stay_within_the_model_s_positions(tmp_path):
    """KTO sets an answer after a prompt that isn't its own, which together may be longer than any row."""
    words = {length: " ".join(["w7"] * length) for length in (2, 40)}
    shapes = [(2, 40), (40, 2)] * 4
    rows = [
        {"prompt": f"w{at} {words[prompt]}", "chosen": words[answer], "rejected": f"w3 {words[answer]}"}
        for at, (prompt, answer) in enumerate(shapes, 3)
    ]
    model = tiny_llama()
    model.config.max_position_embeddings = 56
    run = train(tmp_path, datasets.Dataset.from_list(rows), word_tokenizer(), loss_type="kto", model=model)
    widths = [len(row["prompt_ids"]) + len(row["mismatched_ids"]) for row in run.train_dataset]
    assert 50 < max(widths) <= 56


def test_a_tokenizer_with_tokens_that_the_model_lacks_is_refused_with_the_row(tmp_path):
    made = word_tokenizer()
    made.add_tokens(["w60"])
    rows = list(pairs(8, safety=False))
    train(tmp_path, datasets.Dataset.from_list(rows), made, loss_type="dpo")  # not one row has the new token
    rows[3] = rows[3] | {"chosen": "w60"}
    words = "row 4: the model has 64 embeddings, but the tokenizer has 65 tokens, and this row has 'w60' with id 64"
    with pytest.raises(BfpoError, match=words):
        train(tmp_path, datasets.Dataset.from_list(rows), made, loss_type="dpo")


@pytest.mark.parametrize("loss_type", ["dpo", "ipo", "bfpo", "sft"])
def test_weights_multiply_the_loss_of_their_rows(tmp_path, loss_type):
    def loss(weights):
        rows = [row | {"weight": weight} for row, weight in zip(pairs(4), weights, strict=True)]
        if loss_type == "sft":
            rows = [{"prompt": row["prompt"], "completion": row["chosen"], "weight": row["weight"]} for row in rows]
        data = datasets.Dataset.from_list(rows)
        return train(tmp_path, data, word_tokenizer(), loss_type=loss_type).state.log_history[0]["loss"]

    whole, first, rest = (loss(weights) for weights in ([1.0] * 4, [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]))
    assert first + rest == pytest.approx(whole, rel=1e-4)
    assert 0 < first < whole
    assert loss([0.5] * 4) == pytest.approx(whole / 2, rel=1e-4)


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
