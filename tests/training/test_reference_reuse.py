"""Training reuses its reference exactly when it may, on probes that other trainers fail."""

import pytest
import torch

from bfpo.engine.forward import Engine
from models import tiny_llama
from training.rows import pairs, word_tokenizer
from training.test_trainer import trainer


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Build a trainer on one cache, and count the model's forwards."""
    calls = []
    plain = Engine.logps
    monkeypatch.setattr(Engine, "logps", lambda *arguments: calls.append(1) or plain(*arguments))

    def build(model=None, data=None, **changes):
        calls.clear()
        options = {"reference_cache": str(tmp_path / "cache"), "layout": "padded"} | changes
        run = trainer(tmp_path / "run", model, data, **options)
        return run, len(calls)

    return build


def sums(run):
    return [row["reference"] for row in run.train_dataset]


def test_the_second_run_scores_nothing(build):
    first, forwards = build()
    assert forwards > 0
    assert (first.reference.reused, first.reference.scored) == (0, 24)
    second, forwards = build()
    assert forwards == 0
    assert (second.reference.reused, second.reference.scored) == (24, 0)
    assert sums(first) == sums(second)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 1e-5},
        {"output_dir": "elsewhere"},
        {"loss_type": "dpo"},
        {"seed": 7},
        {"global_batch_size": 3},
        {"trainable": "down_proj"},
        {"reduction": "mean"},
    ],
)
def test_unrelated_changes_score_nothing(build, changes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, _ = build()
    second, forwards = build(**changes)
    assert forwards == 0
    assert sums(first) == sums(second)


def test_only_rows_that_truncation_changed_are_scored_again(build):
    whole, _ = build()
    cut, _ = build(max_length=11)
    changed = [
        mine["answer_ids"] != theirs["answer_ids"]
        for mine, theirs in zip(whole.train_dataset, cut.train_dataset, strict=True)
    ]
    assert 0 < sum(changed) < len(changed)
    assert cut.reference.scored == 2 * sum(changed)
    fresh, _ = build(max_length=11, reference_cache=None)
    for mine, theirs in zip(sums(cut), sums(fresh), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-10)


def test_other_weights_are_scored_again(build):
    build()
    other, forwards = build(tiny_llama(dtype=torch.float64, seed=1))
    assert forwards > 0
    assert other.reference.scored == 24
    lower, forwards = build(tiny_llama(dtype=torch.float32))
    assert lower.reference.scored == 24


def test_new_rows_are_added_to_the_old(build):
    build(data=pairs(12))
    more, _ = build(data=pairs(20))
    assert (more.reference.reused, more.reference.scored) == (24, 16)


def test_another_template_is_scored_again(build, monkeypatch):
    def with_template(prefix):
        tokenizer = word_tokenizer()
        tokenizer.chat_template = (
            "{{ bos_token }}{% for message in messages %}" + prefix + " {{ message['content'] }} "
            "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        )
        return tokenizer

    monkeypatch.setattr("training.test_trainer.TOKENIZER", with_template("w1"))
    build()
    monkeypatch.setattr("training.test_trainer.TOKENIZER", with_template("w2"))
    again, forwards = build()
    assert forwards > 0
    assert again.reference.reused == 0
