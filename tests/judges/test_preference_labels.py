"""Tests of preference sets as files of labels: every form, half-labeled, judges' labels left out."""

import json

import pytest

from bfpo.errors import BfpoError
from bfpo.judges import Exchange
from bfpo.judges.labels import LabeledAnswer, load_answers, load_labels, representative

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_is_safe": True, "rejected_is_safe": None}
TURNS = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]


def written(tmp_path, *rows, name="set.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def labels(path, columns=None):
    return [(one.exchange.prompt, one.exchange.answer, one.is_safe) for one in load_labels(path, columns)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (PAIR, [("p", "a", True), ("p", "b", None)]),
        (PAIR | {"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "b"}]},
         [("p", "a", True), ("p", "b", None)]),
        (PAIR | {"chosen_is_safe": 0.9, "rejected_is_safe": 0.5}, [("p", "a", True), ("p", "b", None)]),
        ({"prompt": "p", "responses": ["a", "b", "c"], "helpfulness": [3, 2, 1], "is_safe": [False, True, None]},
         [("p", "a", False), ("p", "b", True), ("p", "c", None)]),
        ({"prompt": "p", "response_0": "a", "response_1": "b", "is_response_0_safe": True, "is_response_1_safe": False,
          "better_response_id": 1}, [("p", "b", False), ("p", "a", True)]),
        # An order is not needed.
        (PAIR | {"chosen_is_better": None}, [("p", "a", True), ("p", "b", None)]),
        (PAIR | {"labelled_by": {"chosen": "judge", "rejected": "unparsed", "order": "people"}},
         [("p", "a", None), ("p", "b", None)]),
    ],
)  # fmt: skip
def test_the_answers_of_preference_sets_are_read_with_people_s_labels(tmp_path, row, expected):
    assert labels(written(tmp_path, row)) == expected
    assert [(one.prompt, one.answer) for one in load_answers(written(tmp_path, row))] == [row[:2] for row in expected]


def test_source_and_category_come_along_and_columns_are_renamed(tmp_path):
    row = PAIR | {"source": "pku", "category": ["x", "y"]}
    expected = LabeledAnswer(Exchange("p", "a"), True, None, "pku", "x, y")
    assert load_labels(written(tmp_path, row))[0] == expected
    row["good"] = row.pop("chosen")
    assert load_labels(written(tmp_path, row), {"good": "chosen"})[0] == expected


def test_answers_to_the_queue_are_told_apart_from_its_random_part(tmp_path):
    by = [{"chosen": "queue", "rejected": "people", "order": "people"},
          {"chosen": "random", "rejected": "judge", "order": "people"}]  # fmt: skip
    rows = [PAIR | {"prompt": f"p{at}", "chosen_is_safe": True, "rejected_is_safe": False, "labelled_by": own}
            for at, own in enumerate(by)]  # fmt: skip
    labeled = load_labels(written(tmp_path, *rows))
    assert [(one.is_safe, one.from_queue) for one in labeled] == [
        (True, True), (False, False), (True, False), (None, False)
    ]  # fmt: skip
    assert representative(labeled) == labeled[1:]
    with pytest.raises(BfpoError, match="all these labels answer the queue"):
        representative(labeled[:1])


def test_a_file_of_answers_is_no_preference_set(tmp_path):
    row = {"prompt": "p", "response": "a", "chosen": "other", "rejected": "b", "is_safe": True}
    assert labels(written(tmp_path, row)) == [("p", "a", True)]


def test_flags_of_k_answers_in_csv(tmp_path):
    path = tmp_path / "k.csv"
    path.write_text('prompt,responses,is_safe\np,"[""a"", ""b""]","[true, null]"\n')
    assert labels(str(path)) == [("p", "a", True), ("p", "b", None)]


def test_problems_of_a_preference_set_are_named(tmp_path):
    with pytest.raises(BfpoError, match=r"row 2, column 'chosen_is_safe': 'yes' is not a probability"):
        load_labels(written(tmp_path, PAIR, PAIR | {"prompt": "q", "chosen_is_safe": "yes"}))
    with pytest.raises(BfpoError, match="column 'answer': it is missing"):
        load_labels(written(tmp_path, {"prompt": "p", "anser": "a", "is_safe": True}))


def test_csv_of_labels_answers_and_verdicts(tmp_path):
    """Cells are text, whatever the column stands for."""
    from bfpo.judges.replay import load_replay

    path = tmp_path / "labels.csv"
    path.write_text("prompt,response,unsafe,is_refusal,flagged\np,a,0,,1\nq,,1,True,0\n")
    assert [(one.exchange.answer, one.is_safe, one.is_refusal) for one in load_labels(str(path))] == [
        ("a", True, None), ("", False, True),
    ]  # fmt: skip
    renamed = load_labels(str(path), {"unsafe": "", "flagged": "unsafe"})
    assert [one.is_safe for one in renamed] == [False, True]
    path.write_text("prompt,answer,is_safe\np,a,maybe\n")
    with pytest.raises(BfpoError, match="'maybe' is not a label"):
        load_labels(str(path))
    path = tmp_path / "verdicts.csv"
    path.write_text(
        "prompt,answer,label,p_safe,refusal,categories,mass,behavior\n"
        'p,a,safe,0.9,,,1,\nq,b,unsafe,0,no,"S1, S2",,x\nr,c,unparsed,,,"[""no reply""]",,\n'
    )
    judge = load_replay(str(path))
    first, second, third = judge.judge([Exchange("p", "a"), Exchange("q", "b", "x"), Exchange("r", "c")])
    assert (first.label, first.p_safe, first.mass, first.categories, first.refusal) == ("safe", 0.9, 1, (), "unknown")
    assert (second.label, second.p_safe, second.categories, second.refusal) == ("unsafe", 0.0, ("S1", "S2"), "no")
    assert (third.label, third.p_safe, third.categories) == ("unparsed", None, ("no reply",))
    path.write_text("prompt,answer,label,p_safe\np,a,safe,most\n")
    with pytest.raises(BfpoError, match="row 1, column 'p_safe': 'most' is not a probability"):
        load_replay(str(path))
