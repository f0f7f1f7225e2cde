"""Pairs and K answers behind one set of functions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.preferences.answers import (
    answer_names,
    answers_of,
    by_answer,
    flag_columns,
    flags_of,
    is_pair,
    values_by_answer,
    with_flags,
)
from bfpo.preferences.loading import load_preferences

flags = st.none() | st.floats(0, 1)


def pair(first: float | None = 1.0, second: float | None = 0.0) -> dict[str, Any]:
    return {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_is_safe": first, "rejected_is_safe": second}


def group(*is_safe: float | None) -> dict[str, Any]:
    return {"prompt": "p", "responses": [f"answer {at}" for at in range(len(is_safe))], "is_safe": list(is_safe)}


def test_a_pair_and_k_answers_read_alike():
    assert (answers_of(pair()), flags_of(pair()), answer_names(pair())) == (
        ["a", "b"],
        [1.0, 0.0],
        ["chosen", "rejected"],
    )
    several = group(1.0, None, 0.0)
    assert (answers_of(several), flags_of(several), answer_names(several)) == (
        ["answer 0", "answer 1", "answer 2"],
        [1.0, None, 0.0],
        ["0", "1", "2"],
    )


@given(st.lists(flags, min_size=1, max_size=5), st.data())
def test_flags_that_are_replaced_stand_in_their_columns(old: list[float | None], data: st.DataObject):
    rows = [group(*old), *([pair(*old)] if len(old) == 2 else [])]
    for row in rows:
        new = data.draw(st.lists(flags, min_size=len(old), max_size=len(old)))
        changed = with_flags(row, new)
        assert flags_of(changed) == new
        assert flags_of(row) == old, "the row itself stays as it is"
        assert answers_of(changed) == answers_of(row)
        assert set(changed) == set(row)
        assert set(flag_columns(row)) < set(row)


@given(st.lists(flags, min_size=1, max_size=5))
def test_values_by_answer_come_back_in_order(values: list[float | None]):
    rows = [group(*values), *([pair(*values)] if len(values) == 2 else [])]
    for row in rows:
        assert values_by_answer(json.loads(json.dumps(by_answer(row, values))), row) == values


def test_a_wrong_number_of_flags_is_refused():
    with pytest.raises(ValueError, match="zip"):
        with_flags(pair(), [1.0])


def test_sets_tell_their_shape_by_their_columns(tmp_path):
    for row, expected in ((pair(), True), (group(1.0, 0.0) | {"helpfulness": [1.0, 0.0]}, False)):
        path = tmp_path / f"{expected}.jsonl"
        path.write_text(json.dumps(row) + "\n")
        rows = load_preferences(str(path))
        assert is_pair(rows.column_names) is is_pair(rows[0]) is expected
