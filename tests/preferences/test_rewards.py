"""The rewards of answers by another objective: read, checked, swapped with their answers, and batched."""

import json

import pytest
import torch

from bfpo import load_preferences
from bfpo.errors import BfpoError
from bfpo.objectives.registry import build_objective
from bfpo.preferences.encoding import encode
from bfpo.preferences.ordering import order_by
from bfpo.preferences.schema import PreferenceDataError
from bfpo.training.batches import as_rows, group_labels
from bfpo.training.training_data import KnownTokens, prepare
from training.rows import word_tokenizer

PAIR = {"prompt": "w1 ", "chosen": "w2", "rejected": "w3", "chosen_is_safe": 0, "rejected_is_safe": 1}
GROUP = {"prompt": "w1 ", "responses": ["w2", "w3", "w4"], "helpfulness": [3, 1, 2]}


def written(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rewards_reach_the_labels_with_their_answers(tmp_path):
    pairs = load_preferences(
        written(
            tmp_path,
            PAIR | {"chosen_reward": 2, "rejected_reward": -0.5},
            PAIR | {"chosen_reward": 1.5, "rejected_reward": 0},
        )
    )
    assert group_labels(as_rows(encode(pairs, word_tokenizer(), 64).dataset)).reward.tolist() == [2, -0.5, 1.5, 0]
    swapped = order_by(pairs, "safe_first")[0]
    assert swapped["chosen"][:] == ["w3", "w3"]
    assert group_labels(as_rows(encode(swapped, word_tokenizer(), 64).dataset)).reward.tolist() == [-0.5, 2, 0, 1.5]
    groups = load_preferences(written(tmp_path, GROUP | {"reward": [1, 2, 3]}))
    labels = group_labels(as_rows(encode(groups, word_tokenizer(), 64).dataset))
    assert labels.reward.tolist() == [1, 2, 3]
    assert labels.of(slice(0, 3)).reward.tolist() == [1, 2, 3]


def test_rows_without_rewards_are_nan_beside_rows_with_them(tmp_path):
    plain = encode(load_preferences(written(tmp_path, PAIR)), word_tokenizer(), 64).dataset
    assert group_labels(as_rows(plain)).reward is None
    rewarded = load_preferences(written(tmp_path, PAIR | {"chosen_reward": 2, "rejected_reward": 1}))
    both = [*as_rows(plain), *as_rows(encode(rewarded, word_tokenizer(), 64).dataset)]
    assert torch.equal(group_labels(both).reward.isnan(), torch.tensor([True, True, False, False]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (PAIR | {"chosen_reward": 1.0}, "column 'chosen_reward': only one of the two answers has a reward"),
        (PAIR | {"chosen_reward": 1.0, "rejected_reward": None}, "'rejected_reward': None does not give one reward"),
        (PAIR | {"chosen_reward": "high", "rejected_reward": 1}, "'chosen_reward': 'high' does not give one reward"),
        (GROUP | {"reward": [1, 2]}, r"column 'reward': \[1, 2\] does not give one reward per answer"),
        (GROUP | {"reward": [1, 2, None]}, "column 'reward': .* does not give one reward per answer"),
        (PAIR | {"reward": [1, 2]}, "column 'reward': it says something in other formats"),
        (GROUP | {"chosen_reward": 1}, "column 'chosen_reward': it says something in other formats"),
    ],
)
def test_incomplete_rewards_are_problems_of_their_row(tmp_path, row, message):
    complete = {"chosen_reward": 0, "rejected_reward": 1} if "chosen" in row else {"reward": [1, 2, 3]}
    with pytest.raises(PreferenceDataError, match=message):
        load_preferences(written(tmp_path, row, {name: complete.get(name, value) for name, value in row.items()}))


def test_rows_beyond_the_models_positions_are_named(tmp_path):
    rows = load_preferences(written(tmp_path, PAIR))
    longest = prepare(rows, word_tokenizer(), 64, build_objective("dpo", {}), KnownTokens(64, (2,))).rows[0]
    length = len(longest["prompt_ids"]) + max(map(len, longest["answer_ids"]))
    for context in (None, length):
        prepare(rows, word_tokenizer(), 64, build_objective("dpo", {}), KnownTokens(64, (2,), context))
    with pytest.raises(BfpoError, match=f"row 1: prompt and answer have {length} tokens.* {length - 1} positions: set"):
        prepare(rows, word_tokenizer(), 64, build_objective("dpo", {}), KnownTokens(64, (2,), length - 1))


def test_modpo_names_the_row_without_rewards(tmp_path):
    rows = load_preferences(written(tmp_path, PAIR))
    known = KnownTokens(64, (2,))
    with pytest.raises(BfpoError, match="row 1: the objective needs the reward of every answer"):
        prepare(rows, word_tokenizer(), 64, build_objective("modpo", {}), known)
