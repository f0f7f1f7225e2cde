"""Tests of draws: full passes, exact shares, equal cells, and complete counts."""

from collections import Counter

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfpo.errors import BfpoError
from bfpo.preferences.blending import balanced, draw, weighted


def rows(flags):
    columns = {
        "chosen": [str(at) for at in range(len(flags))],
        "chosen_is_safe": [chosen for chosen, _ in flags],
        "rejected_is_safe": [rejected for _, rejected in flags],
        "row": list(range(1, len(flags) + 1)),
    }
    return datasets.Dataset.from_dict(columns)


@given(st.integers(1, 30), st.integers(0, 100), st.integers(0, 3))
def test_no_row_is_drawn_twice_more_often_than_another(count, wanted, seed):
    drawn = draw(count, wanted, np.random.default_rng(seed))
    times = np.bincount(drawn, minlength=count)
    assert len(drawn) == wanted
    assert times.max() - times.min() <= 1


def test_weights_share_out_all_rows_and_report_repeats_and_leftovers():
    sources = [rows([(1.0, 0.0)] * count) for count in (10, 30, 60)]
    drawn = weighted(sources, [2.0, 2.0, 1.0], [0, 0, 0])
    assert [len(part) for part, _ in drawn] == [40, 40, 20]
    assert [(c.rows, c.drawn, c.repeats, c.leftovers) for _, c in drawn] == [
        (10, 40, 30, 0), (30, 40, 10, 0), (60, 20, 0, 40),
    ]  # fmt: skip
    assert set(Counter(drawn[0][0]["row"]).values()) == {4}
    assert drawn[0][0]["row"][:] == sorted(drawn[0][0]["row"])


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0.1, 5)), min_size=1, max_size=5))
def test_weights_never_lose_a_row_to_rounding(parts):
    sources = [rows([(1.0, 1.0)] * count) for count, _ in parts]
    drawn = weighted(sources, [weight for _, weight in parts], [0] * len(parts))
    assert sum(len(part) for part, _ in drawn) == sum(count for count, _ in parts)


def test_draws_depend_on_the_seed_and_on_nothing_else():
    def order(seed):
        return weighted([rows([(1.0, 1.0)] * 40), rows([(1.0, 1.0)] * 40)], [1, 3], [seed, seed])[0][0]["row"][:]

    assert order(1) == order(1) != order(2)


@pytest.mark.parametrize(("balance", "each"), [("repeat", 6), ("leave_out", 2)])
def test_every_cell_that_occurs_gets_the_same(balance, each):
    flags = [(1.0, 1.0)] * 6 + [(1.0, 0.2)] * 3 + [(0.0, 0.9)] * 2
    drawn, counts = balanced(rows(flags), balance, 0)
    cells = Counter(
        (chosen >= 0.5, rejected >= 0.5)
        for chosen, rejected in zip(*(drawn[f"{n}_is_safe"] for n in ("chosen", "rejected")), strict=True)
    )
    assert cells == {(True, True): each, (True, False): each, (False, True): each}
    assert counts.drawn == 3 * each
    assert (counts.repeats, counts.leftovers) == ((7, 0) if balance == "repeat" else (0, 5))


def test_what_has_no_cell_is_refused():
    with pytest.raises(BfpoError, match="row 2 can't be balanced"):
        balanced(rows([(1.0, 0.0), (None, 0.0)]), "repeat", 0)
    with pytest.raises(BfpoError, match="only pairs can be balanced"):
        balanced(datasets.Dataset.from_dict({"responses": [["a"]]}), "repeat", 0)
