"""KTO against its formula and TRL's loss, and its estimate of the KL divergence in a real trainer."""

import datasets
import numpy as np
import pytest
import torch
from scipy.special import expit

from bfpo import BFPOConfig, BFPOTrainer
from bfpo.engine.padded import padded_logps
from bfpo.errors import BfpoError
from bfpo.groups import GroupLabels, GroupLogps, TokenGroup
from bfpo.objectives.registry import build_objective
from bfpo.preferences.encoding import encode
from bfpo.training.batches import as_rows
from bfpo.training.mismatched import with_mismatched
from models import tiny_llama
from training.rows import pairs, word_tokenizer


def inputs(ratios, orders):
    """Pairs of answers with these log-ratios, two by two, each a group."""
    count = len(orders)
    logps = GroupLogps(
        torch.tensor(ratios, dtype=torch.float64), torch.zeros(2 * count, dtype=torch.float64),
        torch.ones(2 * count, dtype=torch.long), torch.arange(count).repeat_interleave(2),
    )  # fmt: skip
    first = torch.arange(0, 2 * count, 2)
    return logps, GroupLabels(torch.ones(2 * count), first, first + 1, torch.tensor(orders, dtype=torch.float64))


def test_kto_by_hand():
    objective = build_objective("kto", {"beta": 0.2, "desirable_weight": 1.5, "undesirable_weight": 0.5})
    better, worse = 1 - expit(0.2 * (3.0 - 0.7)), 1 - expit(0.2 * (0.7 + 1.0))
    assert objective(*inputs([3.0, -1.0], [1.0]), kl=0.7).item() == pytest.approx((1.5 * better + 0.5 * worse) / 2)
    # With an order of .8, the second answer is the better one in a fifth.
    other = 1.5 * (1 - expit(0.2 * (-1.0 - 0.7))) + 0.5 * (1 - expit(0.2 * (0.7 - 3.0)))
    expected = 0.8 * (1.5 * better + 0.5 * worse) / 2 + 0.2 * other / 2
    assert objective(*inputs([3.0, -1.0], [0.8]), kl=0.7).item() == pytest.approx(expected)
    with pytest.raises(BfpoError, match="KTO needs kl"):
        objective(*inputs([3.0, -1.0], [1.0]))
    for name in ("beta", "desirable_weight", "undesirable_weight"):
        with pytest.raises(BfpoError, match=f"{name} must be greater than 0"):
            build_objective("kto", {name: 0.0})


def test_kto_is_trls():
    trl_losses = pytest.importorskip("objectives.trl_losses")
    generator = np.random.default_rng(0)
    objective = build_objective("kto", {"beta": 0.3, "desirable_weight": 1.3, "undesirable_weight": 0.7})
    for shift in (-2.0, 0.0, 2.0):
        ratios, mismatched = 3 * generator.normal(size=8), generator.normal(size=8) + shift
        logps, labels = inputs(ratios, [1.0] * 4)
        ours = objective(logps, labels, kl=max(0.0, mismatched.mean())).mean().item()
        theirs = trl_losses.kto_loss(ratios, [True, False] * 4, mismatched, 0.3, (1.3, 0.7))
        assert ours == pytest.approx(theirs, abs=1e-5)


def trainer(folder, data, **changes):
    arguments = {
        # With a small weight, bad answers lose little, so the mean log-ratio rises and the clamp at 0 hides nothing.
        "output_dir": str(folder), "loss_type": "kto", "beta": 0.3, "undesirable_weight": 0.01, "learning_rate": 1e-2,
        "global_batch_size": 6, "max_steps": 3, "logging_steps": 1, "save_strategy": "no", "use_cpu": True,
        "disable_tqdm": True, "reference_cache": None, "max_length": 64, "report_to": "none",
    }  # fmt: skip
    evaluation, model = pairs(5, seed=4), tiny_llama(dtype=torch.float64)
    made = BFPOTrainer(model, BFPOConfig(**(arguments | changes)), data, evaluation, processing_class=word_tokenizer())
    made.train()
    return made


@torch.no_grad()
def by_hand(model, first_model, rows, beta):
    """The loss over rows, from padded rows of one answer each: every answer and every mismatched one by itself."""

    def ratio(prompt, answer):
        group = [TokenGroup(prompt, [answer])]
        return (padded_logps(model, group).policy - padded_logps(first_model, group).policy).item()

    kl = max(0.0, np.mean([ratio(row["prompt_ids"], row["mismatched_ids"]) for row in rows]))
    losses = []
    for row in rows:
        better, worse = (ratio(row["prompt_ids"], answer) for answer in row["answer_ids"])
        losses += [1 - expit(beta * (better - kl)), 0.01 * (1 - expit(beta * (kl - worse)))]
    return kl, np.mean(losses)


def test_a_trainer_estimates_kl_over_the_step_whatever_the_micro_batches(tmp_path):
    runs = [
        trainer(tmp_path / str(tokens), pairs(12), micro_batch_tokens=tokens, layout=layout)
        for tokens, layout in ((10_000, "shared"), (20, "shared"), (40, "padded"))
    ]
    histories = [[entry for entry in run.state.log_history if "loss" in entry] for run in runs]
    for history in histories[1:]:
        for entry, first in zip(history, histories[0], strict=True):
            for name in ("loss", "kl", "grad_norm"):
                assert entry[name] == pytest.approx(first[name], rel=1e-6, abs=1e-9), name
    # At the start policy and reference are the same model.
    assert histories[0][0]["kl"] == pytest.approx(0, abs=1e-6)
    assert histories[0][-1]["kl"] > 0.01


def test_evaluation_is_the_loss_by_hand(tmp_path):
    run = trainer(tmp_path, pairs(12), max_steps=6)
    collate, collated = run.data_collator, []
    run.data_collator = lambda rows: collated.append(len(rows)) or collate(rows)
    found = run.evaluate()
    # The pass that estimates the KL divergence reads nothing but the answers to other prompts.
    assert sum(collated) == 5
    rows = as_rows(run.eval_dataset)
    kl, loss = by_hand(run.model.eval(), tiny_llama(dtype=torch.float64).eval(), rows, 0.3)
    assert found["eval_kl"] == pytest.approx(kl, rel=1e-6)
    assert kl > 0.01
    assert found["eval_loss"] == pytest.approx(loss, rel=1e-6)


def test_mismatched_answers_are_those_of_other_prompts_and_always_the_same():
    data = datasets.concatenate_datasets([pairs(6), pairs(6)])
    rows = encode(canonical(data), word_tokenizer(), 64).dataset
    found = with_mismatched(rows, 12)
    assert found["mismatched_ids"][:] == with_mismatched(rows, 12)["mismatched_ids"][:]
    for row in found:
        owners = [one["prompt_ids"] for one in rows for answer in one["answer_ids"]
                  if answer[: 12 - len(row["prompt_ids"])] == row["mismatched_ids"]]  # fmt: skip
        assert owners
        assert row["prompt_ids"] not in owners
        assert len(row["prompt_ids"]) + len(row["mismatched_ids"]) <= 12
    with pytest.raises(BfpoError, match="all rows have the same prompt"):
        with_mismatched(rows.select([0, 6]), 64)


def test_rows_of_mismatched_answers_are_read_in_chunks(monkeypatch):
    """Decoding a row for each of 100,000 would take minutes before the first step, in every process."""
    rows = encode(canonical(pairs(40)), word_tokenizer(), 64).dataset

    def refuse(*arguments):
        raise AssertionError("a row was read by itself")

    monkeypatch.setattr(datasets.Dataset, "__getitem__", refuse)
    assert len(with_mismatched(rows, 64)) == 40


def canonical(data):
    from bfpo.preferences.loading import convert
    from bfpo.preferences.reading import dataset_source

    return convert(dataset_source("rows", data))[0]
