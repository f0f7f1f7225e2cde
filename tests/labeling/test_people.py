"""Tests of merging people's answers from a queue into its set, in either order of a pair."""

import json

import pytest

from bfpo.labeling.people import with_answers
from bfpo.preferences.schema import PreferenceDataError

PAIR = {
    "prompt": "p", "chosen": "a", "rejected": "b", "chosen_is_safe": None, "rejected_is_safe": 1.0,
    "chosen_is_better": None, "chosen_is_safer": 0.0, "row": 3,
}  # fmt: skip
GROUP = {"prompt": "q", "responses": ["x", "y", "z"], "helpfulness": [3.0, 2.0, 1.0], "is_safe": [None] * 3, "row": 4}
TURNED = PAIR | {"chosen": "b", "rejected": "a", "chosen_is_safe": 1.0, "rejected_is_safe": 0.4}


def merged(tmp_path, *queued):
    path = tmp_path / "queue.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in queued))
    return with_answers([PAIR, GROUP], str(path))


def test_answers_fill_what_was_open_and_nothing_else(tmp_path):
    pair, group = merged(
        tmp_path,
        GROUP | {"asks": {"0": True, "1": None, "2": 0.25}},
        PAIR | {"asks": {"chosen": False, "order": 0.75}},
    )
    by = {"chosen": "queue", "rejected": "people", "order": "queue"}
    assert pair == PAIR | {"chosen_is_safe": 0.0, "chosen_is_better": 0.75, "labelled_by": by}
    assert group == GROUP | {"is_safe": [1.0, None, 0.25], "labelled_by": {"answers": ["queue", "unparsed", "queue"]}}


def test_a_queue_with_nothing_answered_changes_nothing(tmp_path):
    pair, group = merged(tmp_path, PAIR | {"asks": {"chosen": None, "order": None}})
    by = {"chosen": "unparsed", "rejected": "people", "order": "unknown"}
    assert (pair, group) == (PAIR | {"labelled_by": by}, GROUP)


def test_answers_to_a_swapped_pair_refer_to_the_order_shown(tmp_path):
    pair, _ = merged(tmp_path, TURNED | {"asks": {"rejected": False, "order": False}})
    by = {"chosen": "queue", "rejected": "people", "order": "queue"}
    assert pair == PAIR | {"chosen_is_safe": 0.0, "chosen_is_better": 1.0, "labelled_by": by}


@pytest.mark.parametrize(("shown", "answer"), [(PAIR, False), (TURNED, True)])
def test_chosen_stays_the_more_helpful_answer(tmp_path, shown, answer):
    pair, _ = merged(tmp_path, shown | {"asks": {"order": answer}})
    assert (pair["chosen"], pair["rejected"], pair["chosen_is_better"]) == ("b", "a", 1.0)
    assert (pair["chosen_is_safe"], pair["rejected_is_safe"], pair["chosen_is_safer"]) == (1.0, None, 1.0)


@pytest.mark.parametrize(
    ("queued", "says"),
    [
        (PAIR, "column 'asks': it has no answers"),
        (PAIR | {"chosen_is_safe": True, "asks": {"chosen": None}}, "column 'chosen_is_safe': True is not where an"),
        (PAIR | {"row": 9, "asks": {"order": True}}, "9 of the set doesn't match"),
        (PAIR | {"row": [3], "asks": {"order": True}}, "[3] of the set doesn't match"),
        (PAIR | {"prompt": "other", "asks": {"order": True}}, "3 of the set doesn't match"),
        (PAIR | {"chosen": "c", "asks": {"order": True}}, "3 of the set doesn't match"),
        (GROUP | {"responses": ["x", "z", "y"], "asks": {"0": True}}, "4 of the set doesn't match"),
        (GROUP | {"responses": 3, "asks": {"0": True}}, "4 of the set doesn't match"),
        (PAIR | {"asks": {"chosen": "yes"}}, "column 'asks.chosen': 'yes' is not an answer"),
        (PAIR | {"asks": {"chosen": 1.7}}, "1.7 is not an answer"),
        (PAIR | {"asks": {"chosne": True}}, "did you mean 'chosen'"),
        (GROUP | {"asks": {"3": True}}, "column 'asks.3': it is not in the queue"),
        (PAIR | {"asks": {"rejected": False}}, "0 contradicts rejected_is_safe 1 in row 3 of the set"),
        (PAIR | {"asks": {"order": True}, "draw": "first"}, "'draw': 'first', placed by 'value', is not a valid draw"),
        (PAIR | {"asks": {"order": True}, "draw": 1, "placed": 2}, "'draw': 1, placed by 2, is not a valid draw"),
    ],
)
def test_invalid_answers_are_named(tmp_path, queued, says):
    with pytest.raises(PreferenceDataError, match=r"row 1.*") as caught:
        merged(tmp_path, queued)
    assert says in str(caught.value)


def test_every_problem_is_reported(tmp_path):
    with pytest.raises(PreferenceDataError) as caught:
        merged(tmp_path, PAIR | {"asks": {"chosen": "yes"}}, GROUP | {"row": 7, "asks": {"0": True}})
    first, second = str(caught.value).splitlines()
    assert "row 1, column 'asks.chosen'" in first
    assert "row 2, column 'row'" in second


def test_twenty_of_many_problems_are_shown_and_the_rest_counted(tmp_path):
    with pytest.raises(PreferenceDataError) as caught:
        merged(tmp_path, *[PAIR] * 23)
    assert len(caught.value.problems) == 23
    assert str(caught.value).splitlines()[-1] == "  and 3 more"
    assert str(caught.value).count("it has no answers") == 20
