"""The orders of a pair's answers: the expectation over hard labels, and refused flags."""

import itertools
import json
import math

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.errors import BfpoError
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.preferences.loading import convert
from bfpo.preferences.ordering import ORDERS, better_first, order_by, preferred_answers
from bfpo.preferences.reading import dataset_source

probabilities = st.floats(0, 1)


def by_hand(order, s, other, first):
    """P(the first answer is better) and the weight of a pair with hard labels, straight from the words of the order."""
    if order == "helpful" or (order == "safe_first" and s == other):
        return float(first), 1.0
    return float(s > other), float(s != other)


@pytest.mark.parametrize("order", ORDERS)
@given(probabilities, probabilities, probabilities)
def test_orders_are_the_expectation_over_hard_labels(order, s, other, p):
    """Numerator and weight separately: the loss of a pair is weight (q l(h) + (1 - q) l(-h))."""
    numerator = weight = 0.0
    for hard in itertools.product([0, 1], repeat=3):
        chance = math.prod(value if one else 1 - value for one, value in zip(hard, (s, other, p), strict=True))
        better, counted = by_hand(order, *hard)
        numerator += chance * counted * better
        weight += chance * counted
    found, found_weight = better_first(order, s, other, p)
    assert found_weight == pytest.approx(weight, abs=1e-12)
    assert found * found_weight == pytest.approx(numerator, abs=1e-12)
    assert 0 <= found <= 1


def rows(*pairs):
    made = [
        {"prompt": f"p{at}", "chosen": "a", "rejected": "b", "chosen_is_safe": s, "rejected_is_safe": o,
         "chosen_is_better": p, "weight": w}
        for at, (s, o, p, w) in enumerate(pairs)
    ]  # fmt: skip
    return convert(dataset_source("rows", datasets.Dataset.from_list(made)))[0]


def test_uncertain_pairs_are_swapped_and_weighted():
    data = rows((0.9, 0.2, 0.3, 2.0), (0.1, 0.8, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0))
    first, counts = order_by(data, "safe_first")
    assert (counts.kept, counts.turned, counts.skipped_equal, counts.weighted) == (2, 1, 0, 0)
    assert first["chosen"][:] == ["a", "b", "a"]
    # .9 .8 + (1 - .74) .3, and for the swapped pair 1 - (.1 .2 + (1 - .74) 1).
    assert first["chosen_is_better"][:] == pytest.approx([0.798, 0.72, 1.0])
    assert first["weight"][:] == [2.0, 1.0, 1.0]
    safer, counts = order_by(data, "safer")
    assert (counts.kept, counts.turned, counts.skipped_equal, counts.weighted) == (1, 1, 1, 2)
    assert safer["chosen_is_better"][:] == pytest.approx([0.72 / 0.74, 0.72 / 0.74])
    assert safer["weight"][:] == pytest.approx([2 * 0.74, 0.74])


@pytest.mark.parametrize("order", ["safer", "safe_first"])
def test_unbiased_flags_are_refused_with_their_row(order):
    data = rows((0.9, 0.2, 0.3, 2.0), (1.0, 0.0, 1.0, 1.0)).map(
        lambda row: row | {"rejected_is_safe": -0.2 if row["row"] == 2 else row["rejected_is_safe"]}
    )
    with pytest.raises(BfpoError, match=f"row 2 can't be ordered as '{order}': .* outside"):
        order_by(data, order)
    assert len(order_by(data, "helpful")[0]) == 2


@given(st.floats(0, 0.5), probabilities)
def test_errors_of_the_flags_bias_safe_first_but_not_bfpos_label(e, q):
    """A safe and an unsafe answer; each flag is wrong with probability e, and the unsafe one is more helpful with q.

    The vote for the safe answer (1 to -1) is 1 - 2e under BFPO's label at alpha 1/2, as docs/concepts.md says, whatever
    q is; under safe_first a common error leaves the vote to helpfulness.
    """
    safe_first = bfpo = 0.0
    for s, other in itertools.product([0.0, 1.0], repeat=2):
        chance = (1 - e if s else e) * (e if other else 1 - e)
        safe_first += chance * (2 * better_first("safe_first", s, other, 1 - q)[0] - 1)
        bfpo += chance * GlobalPreference().target(s, other, 1 - q).item()
    assert bfpo == pytest.approx(1 - 2 * e, abs=1e-6)
    assert safe_first == pytest.approx((1 - 2 * e) - 2 * e * (1 - e) * (2 * q - 1), abs=1e-9)


def test_labeled_rows_are_swapped_with_what_is_noted_of_their_answers():
    word = {"verdict": 1.0, "probability": 0.9}
    labeled = {
        "prompt": "p", "chosen": "a", "rejected": "b", "chosen_is_safe": 0.0, "rejected_is_safe": 1.0,
        "labelled_by": {"chosen": "people", "rejected": "judge", "order": "judge"},
        "judged_as": {"chosen": None, "rejected": word, "order": {"verdict": 1.0, "probability": 0.7}},
    }  # fmt: skip
    data = convert(dataset_source("rows", datasets.Dataset.from_list([labeled])))[0]
    row = order_by(data, "safe_first")[0][0]
    assert (row["chosen"], row["chosen_is_safe"]) == ("b", 1.0)
    assert json.loads(row["labelled_by"]) == {"chosen": "judge", "rejected": "people", "order": "judge"}
    order = {"verdict": 0.0, "probability": pytest.approx(0.3)}
    assert json.loads(row["judged_as"]) == {"chosen": word, "rejected": None, "order": order}
    # The notes are on pairs.
    assert not {"labelled_by", "judged_as"} & set(preferred_answers(data, "helpful").column_names)


def test_one_answer_of_a_pair_is_the_likelier_better_one():
    """A data set of A and B has the probability that A is better; SFT took A always."""
    pair = {"prompt": "p", "chosen": "worse", "rejected": "better", "chosen_is_safe": 1.0, "rejected_is_safe": 1.0,
            "chosen_is_better": 0.0}  # fmt: skip
    unsafe = pair | {"rejected_is_safe": 0.0}
    data = convert(dataset_source("rows", datasets.Dataset.from_list([pair, unsafe])))[0]
    answers = {order: preferred_answers(data, order)["responses"] for order in ("helpful", "safe_first")}
    assert [[text for [text] in own] for own in answers.values()] == [["better", "better"], ["better", "worse"]]


def group_rows(*groups):
    return datasets.Dataset.from_list([
        {"prompt": "p", "responses": ["x"] * len(flags), "is_safe": list(flags), "helpfulness": scores, "row": number}
        for number, (flags, scores) in enumerate(groups, 1)
    ])  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 0.25, 2.0])), min_size=2, max_size=5))
def test_k_answers_are_ordered_safe_first_as_their_pairs_are(answers):
    flags, scores = zip(*answers, strict=True)
    found, _ = order_by(group_rows((flags, list(scores))), "safe_first")
    ranks = found[0]["helpfulness"]
    for one, other in itertools.combinations(range(len(answers)), 2):
        helps = 0.5 + 0.5 * ((scores[one] > scores[other]) - (scores[one] < scores[other]))
        first, weight = better_first("safe_first", flags[one], flags[other], helps)
        assert weight == 1
        assert 0.5 + 0.5 * ((ranks[one] > ranks[other]) - (ranks[one] < ranks[other])) == first


def test_k_answers_keep_their_flags_and_turned_groups_are_counted():
    rows = group_rows(((0.0, 1.0), [3.0, 1.0]), ((1.0, 0.0), [3.0, 1.0]), ((1.0, 0.0), None), ((1.0, 1.0), [1.0, 1.0]))
    found, counts = order_by(rows, "safe_first")
    assert [row["helpfulness"] for row in found] == [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    assert [row["is_safe"] for row in found] == [row["is_safe"] for row in rows]
    assert (counts.kept, counts.turned, counts.skipped_equal) == (2, 2, 0)
    assert order_by(rows, "helpful")[0] is rows


def test_k_answers_with_uncertain_flags_or_another_order_are_refused():
    with pytest.raises(BfpoError, match="row 1: K answers can be ordered as 'safe_first' by certain flags only"):
        order_by(group_rows(((0.5, 1.0), [3.0, 1.0])), "safe_first")
    with pytest.raises(BfpoError, match="certain flags only"):
        order_by(group_rows(((None, 1.0), [3.0, 1.0])), "safe_first")
    with pytest.raises(BfpoError, match=r"only pairs can be ordered as 'safer'.*prefer: safe_first"):
        order_by(group_rows(((0.0, 1.0), [3.0, 1.0])), "safer")
