"""Tests of the queue: values by enumeration, the discount for repeated prompts, and the gain over a random order."""

import random
from itertools import product

import pytest
from scipy.special import expit as sigmoid

from bfpo import GlobalPreference
from bfpo.labeling.queue import queue_for_people, target_variances

LABELING = GlobalPreference()
BY_JUDGE = {"chosen": "judge", "rejected": "judge", "order": "people"}


def pair(number, safe, better=1.0, prompt=None, by=BY_JUDGE):
    return {
        "prompt": prompt or f"p{number}", "chosen": "a", "rejected": "b", "chosen_is_safe": safe[0],
        "rejected_is_safe": safe[1], "chosen_is_better": better, "row": number, "labelled_by": by,
    }  # fmt: skip


def enumerated(s, t, p):
    """Mean and variance of the paper's label over eight outcomes, written out."""
    outcomes = []
    for w, l, order in product((0, 1), repeat=3):
        chance = (s if w else 1 - s) * (t if l else 1 - t) * (p if order else 1 - p)
        outcomes.append((chance, 1.5 * w - 0.5 * l - 0.5 if order else -(1.5 * l - 0.5 * w - 0.5)))
    mean = sum(chance * value for chance, value in outcomes)
    return sum(chance * (value - mean) ** 2 for chance, value in outcomes)


@pytest.mark.parametrize(
    "labels", [(0.5, 0.5, 1.0), (0.9, 0.2, 0.7), (1.0, 1.0, 0.5), (1.0, 0.0, 1.0), (0.3, 0.3, 0.3)]
)
def test_value_is_the_variance_of_the_target(labels):
    s, t, p = labels
    assert target_variances([pair(1, (s, t), p)], LABELING) == [pytest.approx(enumerated(s, t, p), abs=1e-12)]


def test_unknown_flags_count_as_the_prior_and_groups_as_the_mean_of_their_pairs():
    group = {
        "prompt": "p",
        "responses": ["a", "b", "c"],
        "helpfulness": [3, 2, 2],
        "is_safe": [None, 1.0, 0.5],
        "row": 1,
    }
    pairs = [(0.8, 1.0), (0.8, 0.5), (1.0, 0.5)]
    expected = sum(enumerated(s, t, 1.0) for s, t in pairs) / 3
    assert target_variances([group], LABELING, 0.8) == [pytest.approx(expected)]


def test_certain_rows_come_last_and_peoples_not_at_all():
    people = dict.fromkeys(BY_JUDGE, "people")
    rows = [pair(1, (0.5, 0.5), by=people), pair(2, (0.99, 0.01)), pair(3, (0.5, 0.6)), pair(4, (None, 0.1))]
    queue = queue_for_people(rows, LABELING)
    assert [row["row"] for row in queue] == [3, 4, 2]
    assert queue[0]["asks"] == {"chosen": None, "rejected": None}


def test_a_prompt_is_not_queued_twice_in_a_row():
    rows = [pair(n, (0.5, 0.5), prompt="same") for n in range(3)] + [pair(9, (0.6, 0.9))]
    queue = queue_for_people(rows, LABELING)
    assert [row["row"] for row in queue] == [0, 9, 1, 2]


def test_a_small_budget_corrects_more_than_a_random_order():
    """2,000 pairs with calibrated probabilities, a tenth of them labeled by people; compares the remaining error."""
    generator = random.Random(0)
    rows, truth = [], []
    for number in range(2000):
        safe = [float(sigmoid(generator.gauss(1, 3))) for _ in range(2)]
        rows.append(pair(number, safe))
        truth.append(tuple(float(generator.random() < chance) for chance in safe))

    def error_left(labeled):
        wrong = 0.0
        for row, flags in zip(rows, truth, strict=True):
            if row["row"] not in labeled:
                said = float(LABELING.target(row["chosen_is_safe"], row["rejected_is_safe"]))
                wrong += (said - float(LABELING.target(*flags))) ** 2
        return wrong

    nobody = error_left(set())
    queued = nobody - error_left({row["row"] for row in queue_for_people(rows, LABELING)[:200]})
    at_random = nobody - error_left(set(generator.sample(range(2000), 200)))
    assert queued > 1.5 * at_random
