"""The queue: values by enumeration, the gain over a random order, and a random part that stays random over rounds."""

import json
import random
from collections import Counter
from itertools import islice, product

import pytest
from scipy.special import expit as sigmoid

from bfpo import GlobalPreference
from bfpo.labeling.people import with_answers
from bfpo.labeling.queue import queue_for_people, random_rows, target_variances

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


def test_a_judged_flag_counts_with_its_probability_and_a_single_answer_with_its_variance():
    word = {"chosen": {"verdict": 1.0, "probability": 0.8}, "rejected": {"verdict": 0.0, "probability": 0.3}}
    judged = pair(1, (1.0, 0.0)) | {"judged_as": word | {"order": {"verdict": 1.0, "probability": 0.6}}}
    assert target_variances([judged], LABELING) == [pytest.approx(enumerated(0.8, 0.3, 1.0))]
    by_judge = judged | {"labelled_by": BY_JUDGE | {"rejected": "queue", "order": "judge"}}
    assert target_variances([by_judge], LABELING) == [pytest.approx(enumerated(0.8, 0.0, 0.6))]
    alone = {"prompt": "p", "responses": ["a"], "helpfulness": None, "is_safe": [0.0], "row": 1}
    alone |= {"labelled_by": {"answers": ["judge"]}, "judged_as": {"answers": [{"verdict": 0.0, "probability": 0.1}]}}
    assert target_variances([alone], LABELING) == [pytest.approx(0.09)]


def test_certain_rows_come_last_and_peoples_not_at_all():
    people = dict.fromkeys(BY_JUDGE, "people")
    rows = [pair(1, (0.5, 0.5), by=people), pair(2, (0.99, 0.01)), pair(3, (0.5, 0.6)), pair(4, (None, 0.1))]
    queue = list(queue_for_people(rows, LABELING))
    assert [row["row"] for row in queue] == [3, 4, 2]
    assert queue[0]["asks"] == {"chosen": None, "rejected": None}


def test_a_prompt_is_not_queued_twice_in_a_row():
    rows = [pair(n, (0.5, 0.5), prompt="same") for n in range(3)] + [pair(9, (0.6, 0.9))]
    queue = list(queue_for_people(rows, LABELING))
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
    queued = nobody - error_left({row["row"] for row in islice(queue_for_people(rows, LABELING), 200)})
    at_random = nobody - error_left(set(generator.sample(range(2000), 200)))
    assert queued > 1.5 * at_random


def judged_pairs(count, seed=0):
    """Pairs whose judge is unsure of the first fifth."""
    generator = random.Random(seed)
    return [pair(n, (generator.uniform(0.4, 0.6) if n < count // 5 else generator.uniform(0.9, 1.0), 0.0))
            for n in range(count)]  # fmt: skip


def test_one_row_in_five_is_drawn_at_random_whatever_the_budget():
    queue = list(queue_for_people(judged_pairs(200), LABELING, random_share=0.2, seed=1))
    assert sorted(row["row"] for row in queue) == list(range(200))
    for budget in (10, 50, 105):
        assert Counter(row["placed"] for row in queue[:budget])["random"] == budget // 5
    by_value = [row["value"] for row in queue if row["placed"] == "value"]
    assert by_value == sorted(by_value, reverse=True)
    placed = [row["draw"] for row in queue if row["placed"] == "random"]
    assert placed == sorted(placed)
    assert queue == list(queue_for_people(judged_pairs(200), LABELING, random_share=0.2, seed=1))
    other = queue_for_people(judged_pairs(200), LABELING, random_share=0.2, seed=2)
    assert [row["row"] for row in other] != [row["row"] for row in queue]
    assert {row["placed"] for row in queue_for_people(judged_pairs(20), LABELING)} == {"value"}
    whole = queue_for_people(judged_pairs(20), LABELING, random_share=1.0)
    assert [row["draw"] for row in whole] == list(range(20))


def test_the_random_part_ends_at_the_first_random_row_left_open():
    draws, is_random = [3, 0, None, 1, 2, 4], [0, 1, 0, 0, 1, 1]
    assert random_rows(draws, is_random, [True] * 6) == {0, 1, 3, 4, 5}
    # Whether the first row was asked depends on what it says: without the last draw it doesn't count.
    assert random_rows(draws, is_random, [True] * 5 + [False]) == {1, 3, 4}
    assert random_rows(draws, is_random, [True, True, True, False, True, True]) == {1}
    assert random_rows(draws, is_random, [True, False, True, True, True, True]) == set()


def rounds(rows, queue_file, budget, seed, share, number=2):
    """The source of the label of every row after rounds of a budget, each with the most uncertain rows first."""
    for _ in range(number):
        queue = list(queue_for_people(rows, LABELING, random_share=share, seed=seed))
        for row in [row for row in queue if row["asks"]][:budget]:
            row["asks"] = dict.fromkeys(row["asks"], True)
        queue_file.write_text("".join(json.dumps(row) + "\n" for row in queue))
        rows = with_answers(rows, str(queue_file))
    return [row["labelled_by"]["chosen"] for row in rows]


def test_two_rounds_together_are_one_random_sample(tmp_path):
    """Over 80 seeds, a fifth of the random part are the rows that each round's queue asks for first."""
    rows = judged_pairs(100)
    unsure = sizes = queued = 0
    for seed in range(80):
        sources = rounds(rows, tmp_path / "queue.jsonl", 20, seed, 0.4)
        sizes += sources.count("random")
        unsure += sources[:20].count("random")
        queued += sources[:20].count("queue")
    # 8 of 20 rows are drawn in each round, and in the second those that the first asked anyway.
    assert 16 <= sizes / 80 < 19
    assert unsure / sizes == pytest.approx(0.2, abs=0.02)
    assert queued / 80 > 10


def test_a_queue_does_not_show_which_answer_a_judge_prefers():
    """A judge's choice is first in its rows; both orders of a pair make one row of the queue, with its flags."""
    by = {"chosen": "people", "rejected": "judge", "order": "judge"}
    row = pair(0, (1.0, 0.2), by=by)
    turned = row | {
        "chosen": "b", "rejected": "a", "chosen_is_safe": 0.2, "rejected_is_safe": 1.0, "chosen_is_better": 0.0,
        "labelled_by": by | {"chosen": "judge", "rejected": "people"},
    }  # fmt: skip
    [[one], [other]] = ([*queue_for_people([given], LABELING)] for given in (row, turned))
    shared = one.keys() & other.keys()
    assert {name: one[name] for name in shared} == {name: other[name] for name in shared}
    assert {"chosen", "labelled_by", "value", "asks"} <= shared
    assert {one[name]: one[f"{name}_is_safe"] for name in ("chosen", "rejected")} == {"a": 1.0, "b": None}
    assert one["chosen_is_better"] is None
    pairs = [pair(at, (0.5, 0.5), by=by) | {"chosen": f"a{at}", "rejected": f"b{at}"} for at in range(200)]
    first = [next(iter(queue_for_people([one], LABELING)))["chosen"][0] for one in pairs]
    assert 60 < first.count("a") < 140


def test_an_order_that_nobody_gave_is_asked_and_peoples_stays_as_it_is():
    for at in range(20):
        row = pair(at, (0.5, 0.5)) | {"rejected": f"b{at}"}
        [human] = queue_for_people([row], LABELING)
        assert (human["chosen"], human["chosen_is_better"], "order" in human["asks"]) == ("a", 1.0, False)
        nobody = row | {"chosen_is_better": None, "labelled_by": BY_JUDGE | {"order": "unknown"}}
        [unknown] = queue_for_people([nobody], LABELING)
        assert "order" in unknown["asks"]
