"""Batches against their rows: a step's labels are cut into groups as if each part had been labeled alone."""

import dataclasses
import math

import datasets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bfpo.groups import LossInputs
from bfpo.training.batches import collate, first_and_longest, group_labels, row_sizes

probability, cost = st.floats(0, 1, width=32), st.floats(0, 4, width=32)


@st.composite
def encoded_rows(draw):
    answers = draw(st.integers(1, 4))
    pairs = [(i, j) for i in range(answers) for j in range(i + 1, answers)]
    flipped = [pair[::-1] if draw(st.booleans()) else pair for pair in pairs]
    return {
        "prompt_ids": draw(st.lists(st.integers(0, 9), min_size=1, max_size=3)),
        "answer_ids": [draw(st.lists(st.integers(0, 9), min_size=1, max_size=4)) for _ in range(answers)],
        "is_safe": [draw(st.none() | probability) for _ in range(answers)],
        "first": [first for first, _ in flipped],
        "second": [second for _, second in flipped],
        "first_is_better": [draw(probability) for _ in pairs],
        "row": draw(st.integers(1, 99)),
        "reference": [draw(st.floats(-50, 0)) for _ in range(answers)],
        # Columns of the data set: every row has them.
        "cost": [draw(st.none() | cost) for _ in range(answers)],
        "reward": [draw(cost) for _ in range(answers)],
    }


rows = st.lists(encoded_rows(), min_size=1, max_size=6)


def assert_same(found, expected):
    for field in dataclasses.fields(expected):
        mine, theirs = getattr(found, field.name), getattr(expected, field.name)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


@given(rows, st.data())
def test_labels_of_some_groups_are_the_labels_of_their_rows(rows, data):
    start = data.draw(st.integers(0, len(rows) - 1))
    stop = data.draw(st.integers(start + 1, len(rows)))
    ends = [sum(len(row["answer_ids"]) for row in rows[:at]) for at in (start, stop)]
    reference = torch.arange(sum(len(row["answer_ids"]) for row in rows))
    inputs = LossInputs(lambda logps, labels: logps.policy, group_labels(rows), reference, 0.5).of(slice(*ends))
    assert_same(inputs.labels, group_labels(rows[start:stop]))
    assert inputs.reference.tolist() == list(range(*ends))
    assert inputs.scale == 0.5


def test_sizes_of_rows_and_the_longest_one():
    """The longest sequence is not in the row with the most tokens, nor among the first rows."""
    answers = [[[1] * 5] * 4] + [[[2] * 3]] * 70 + [[[3] * 14]]
    data = datasets.Dataset.from_list(
        [{"prompt_ids": [0] * 2, "answer_ids": own, "context": [], "row": at} for at, own in enumerate(answers)]
    )
    tokens, widths = row_sizes(data)
    assert (tokens.argmax(), widths.argmax(), widths.tolist()[:2]) == (0, 71, [7, 5])
    first, longest = first_and_longest(data, widths)
    assert [group.width for group in first] == [7] + [5] * 63
    assert longest.width == 16


def test_costs_and_rewards_stay_with_their_answers():
    row = {"is_safe": [1.0, 0.0], "first": [0], "second": [1], "first_is_better": [1.0]}
    labels = group_labels([row, row | {"cost": [0.5, None], "reward": [1.0, 2.0]}])
    for found, expected in ((labels.cost, [0.5, math.nan]), (labels.reward, [1.0, 2.0])):
        torch.testing.assert_close(found, torch.tensor([math.nan, math.nan, *expected]), equal_nan=True)
    assert group_labels([row]).cost is None


@given(rows)
def test_micro_batches_hold_what_their_rows_hold(rows):
    split = [[index] for index in reversed(range(len(rows)))]
    batches = collate(rows, lambda groups: split)["batches"]
    for batch, row in zip(batches, reversed(rows), strict=True):
        assert (batch.groups[0].prompt, batch.groups[0].answers) == (row["prompt_ids"], row["answer_ids"])
        assert batch.reference.tolist() == row["reference"]
        assert batch.rows == [row["row"]]
        assert_same(batch.labels, dataclasses.replace(group_labels([row]), is_checked=True))


@pytest.mark.parametrize("rows", [[], [{"prompt_ids": [1], "answer_ids": [[2]], "is_safe": [None]}]])
def test_a_share_without_rows_has_no_batch_and_rows_without_reference_have_none(rows):
    rows = [row | {"row": 1, "first": [], "second": [], "first_is_better": []} for row in rows]
    batches = collate(rows, lambda groups: [[index] for index in range(len(groups))])["batches"]
    assert [batch.reference for batch in batches] == [None] * len(rows)
