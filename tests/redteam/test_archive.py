"""The archive: cells, the best of each, and the choice of what to try next."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bfpo.redteam.archive import Archive, Planned, Tried
from bfpo.redteam.bank import Pair

PAIRS = tuple(
    Pair(f"{category}-{number}", category, f"risky {category} {number}", f"benign {category} {number}")
    for category in ("privacy", "cyber")
    for number in range(5)
)
STYLES = ("plain", "authority")


def tried(pair, style, success):
    return Tried(Planned(PAIRS[pair], style), success)


def test_a_cell_keeps_the_attack_that_worked_best_and_the_earliest_of_equal_ones():
    archive = Archive(PAIRS, STYLES, (tried(0, "plain", 0.25), tried(1, "plain", 0.75), tried(2, "plain", 0.75)))
    assert archive.cells == (("privacy", "plain"), ("privacy", "authority"), ("cyber", "plain"), ("cyber", "authority"))
    assert {cell: one.planned.pair.id for cell, one in archive.best.items()} == {("privacy", "plain"): "privacy-1"}
    better = archive.with_outcomes([tried(3, "plain", 1.0)])
    assert better.best["privacy", "plain"].planned.pair.id == "privacy-3"
    assert len(archive.tried) == 3


@given(st.integers(0, 30), st.integers(0, 5), st.lists(st.floats(0, 1), max_size=6))
def test_nothing_is_tried_twice_and_all_is_tried_in_the_end(count, seed, successes):
    done = [tried(number, "plain", success) for number, success in enumerate(successes)]
    archive = Archive(PAIRS, STYLES, tuple(done))
    chosen = archive.choose(count, seed)
    keys = [(plan.pair.id, plan.style) for plan in chosen]
    assert len(set(keys)) == len(keys) == min(count, len(PAIRS) * len(STYLES) - len(done))
    assert not set(keys) & {(one.planned.pair.id, one.planned.style) for one in done}
    assert archive.choose(count, seed) == chosen


def test_cells_that_are_won_are_seldom_drawn():
    won = [tried(0, "plain", 1.0), tried(5, "plain", 1.0), tried(5, "authority", 1.0)]
    drawn = Counter(Archive(PAIRS, STYLES, tuple(won)).choose(1, seed)[0].cell for seed in range(400))
    # Weights 1.1 for the cell without a success, .1 for each of the others.
    assert 0.7 < drawn["privacy", "authority"] / 400 < 0.87
    assert all(0.02 < drawn[cell] / 400 < 0.15 for cell in (("privacy", "plain"), ("cyber", "plain")))


def test_half_of_the_requests_worked_in_another_style():
    archive = Archive(PAIRS[:5], STYLES, (tried(0, "plain", 0.2), tried(1, "plain", 0.8), tried(2, "plain", 0.0)))
    drawn = Counter(
        plan.pair.id for seed in range(1000) for plan in archive.choose(1, seed) if plan.style == "authority"
    )
    total = sum(drawn.values())
    # Half by success (1/5 and 4/5 of it), half at random among five.
    expected = {"privacy-0": 0.1 + 0.1, "privacy-1": 0.4 + 0.1, "privacy-2": 0.1, "privacy-3": 0.1, "privacy-4": 0.1}
    assert all(abs(drawn[name] / total - share) < 0.06 for name, share in expected.items()), drawn


def test_another_seed_or_state_gives_another_choice():
    archive = Archive(PAIRS, STYLES)
    assert archive.choose(5, 0) != archive.choose(5, 1)
    first = archive.choose(1, 0)[0]
    assert archive.with_outcomes([Tried(first, 0.0)]).choose(5, 0) != archive.choose(5, 0)
