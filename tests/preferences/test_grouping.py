"""Pairs of one prompt as one group: the loss stays the same, and what is merged is counted."""

import datasets
import numpy as np
import pytest
import torch

from bfpo.engine.forward import Engine
from bfpo.errors import BfpoError
from bfpo.groups import LossInputs
from bfpo.objectives.registry import build_objective
from bfpo.preferences.encoding import encode
from bfpo.preferences.grouping import group_by_prompt, with_equal_pairs
from bfpo.preferences.loading import convert
from bfpo.preferences.reading import dataset_source
from bfpo.training.batches import as_rows, group_labels, token_groups
from models import tiny_llama
from training.rows import word_tokenizer

WORDS = [f"w{number}" for number in range(40)]


def canonical(rows):
    return convert(dataset_source("rows", datasets.Dataset.from_list(rows)))[0]


def shared_prompts(count=24, prompts=4, answers=4, seed=0):
    """Pairs among few answers to few prompts, with a flag and a reward that belong to the answer."""
    generator = np.random.default_rng(seed)
    flags, rewards = generator.random((2, prompts, answers)).round(2)
    rows = []
    for _ in range(count):
        prompt, (i, j) = generator.integers(prompts), generator.choice(answers, 2, replace=False)
        rows.append(
            {
                "prompt": f"w{prompt} ", "chosen": f"w{10 + i} w{prompt} w{20 + i}", "rejected": f"w{10 + j} w{30 + j}",
                "chosen_is_safe": flags[prompt, i], "rejected_is_safe": flags[prompt, j],
                "chosen_is_better": round(generator.random(), 2),
                "chosen_reward": rewards[prompt, i], "rejected_reward": rewards[prompt, j],
                "weight": float(generator.integers(1, 3)),
            }
        )  # fmt: skip
    return canonical(rows)


def total_loss(rows, objective):
    """Mean loss over all rows, with a real model and its gradient, in float64."""
    model = tiny_llama(dtype=torch.float64)
    encoded = as_rows(encode(rows, word_tokenizer(), 64).dataset)
    groups = token_groups(encoded)
    reference = torch.arange(sum(len(group.answers) for group in groups), dtype=torch.float64) * 0 - 12.0
    inputs = LossInputs(objective, group_labels(encoded), reference, 1 / len(groups))
    loss, _ = Engine(model, "padded", 10_000).loss(model, groups, inputs)
    loss.backward()
    return loss.item(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize("name", ["bfpo", "dpo", "ipo", "safedpo", "modpo"])
def test_the_loss_and_its_gradient_are_those_of_the_pairs(name):
    rows = shared_prompts()
    grouped, counts = group_by_prompt(rows)
    # Four prompts with two weights.
    assert (counts.pairs, counts.groups, counts.averaged) == (24, 8, 0)
    assert counts.answers == sum(map(len, grouped["responses"])) < 2 * counts.pairs
    objective = build_objective(name, {"beta": 0.3})
    [equal] = with_equal_pairs([grouped])
    (loss, gradient), (grouped_loss, grouped_gradient) = (total_loss(one, objective) for one in (rows, equal))
    assert grouped_loss == pytest.approx(loss, rel=1e-6)  # labels are float32
    torch.testing.assert_close(grouped_gradient, gradient, rtol=1e-5, atol=1e-6 * gradient.abs().max().item())


PAIR = {
    "prompt": "w1 ", "chosen": "w2", "rejected": "w3", "chosen_is_safe": 1.0, "rejected_is_safe": 0.0, "row": 1,
    "chosen_is_better": 1.0,
}  # fmt: skip


OTHER = {"prompt": "w5 "}


def test_equal_answers_are_merged_and_their_flags_averaged():
    rows = canonical(
        [
            PAIR,
            PAIR | {"rejected": "w4", "chosen_is_safe": 0.0},
            PAIR | {"chosen": "w3", "rejected": "w2", "chosen_is_safe": 0.0, "rejected_is_safe": 1.0},
            PAIR | {"prompt": "w5 "},
        ]
    )
    grouped, counts = group_by_prompt(rows)
    first = grouped[0]
    assert first["responses"] == ["w2", "w3", "w4"]
    assert first["is_safe"] == [pytest.approx(2 / 3), 0.0, 0.0]
    assert (first["first"], first["second"]) == ([0, 0, 1], [1, 2, 0])
    assert grouped["weight"][:] == [3.0, 1.0]
    assert with_equal_pairs([grouped])[0]["weight"][:] == [3 * 2 / 4, 1 * 2 / 4]
    assert (counts.pairs, counts.groups, counts.answers, counts.largest, counts.averaged) == (4, 2, 5, 3, 1)


def test_every_pair_of_several_sources_counts_the_same():
    """Groups of three and one pairs, two pairs with weights of their own, and two rows that are no groups."""
    grouped, _ = group_by_prompt(canonical([PAIR, PAIR | {"rejected": "w4"}, PAIR | {"chosen": "w6"}, PAIR | OTHER]))
    pairs = canonical([PAIR | {"weight": 2.0}, PAIR | OTHER])
    rows = canonical([PAIR, PAIR | OTHER])
    scaled = with_equal_pairs([grouped, pairs, rows])
    factor = 6 / 8
    assert [one["weight"][:] for one in scaled] == [[3 * factor, factor], [2 * factor, factor], [factor, factor]]
    assert "weight" not in with_equal_pairs([rows])[0].column_names


def test_a_known_flag_counts_where_another_pair_has_none():
    rows = canonical([PAIR, PAIR | {"rejected": "w4"}])
    unknown = rows.map(lambda row: row | {"chosen_is_safe": None if row["row"] == 2 else 1.0})
    grouped, counts = group_by_prompt(unknown)
    assert grouped[0]["is_safe"] == [1.0, 0.0, 0.0]
    assert counts.averaged == 1


def test_costs_of_harm_stay_with_their_answers():
    rows = canonical([PAIR, PAIR | {"rejected": "w4"}, PAIR | {"rejected": "w6"}])
    rows = rows.add_column("cost", [[0.0, 0.5], [0.0, 1.0], [0.5, 0.25]])
    grouped, counts = group_by_prompt(rows)
    assert grouped["cost"][0] == [pytest.approx(1 / 6), 0.5, 1.0, 0.25]
    assert counts.averaged == 1


def test_only_pairs_are_grouped():
    groups = canonical([{"prompt": "p", "responses": ["a", "b"], "helpfulness": [1, 2]}])
    with pytest.raises(BfpoError, match="only pairs can be grouped by prompt"):
        group_by_prompt(groups)
